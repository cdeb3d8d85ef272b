//! A repository of the form of PEP 458, made sparsely: all bins are listed, as many as are asked for exist.

use std::{
    collections::BTreeMap,
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use ed25519_dalek::{Signer as _, SigningKey};
use jiff::Timestamp as Time;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tufgate::{
    base::{Algorithm, Digest, Digests},
    tuf::{
        KeyId, RoleName, TargetPath, Version, canonical,
        schema::{
            DelegatedRole, Delegations, Document, Extra, Key, MetaFile, RoleKeys, Root, Signature, Snapshot,
            SuccinctRoles, TargetFile, Targets, Timestamp,
        },
    },
};

/// When all metadata expires: no benchmark outlives it.
const EXPIRES: &str = "2099-01-01T00:00:00Z";
/// What the names of bins begin with.
const PREFIX: &str = "bins";

/// The shape of a repository.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// `2^bits` bins.
    pub bits: u32,
    /// Targets in each bin that exists.
    pub targets: usize,
    /// How many bins exist, evenly spread.
    pub bins: u32,
    /// Whether snapshot lists lengths and digests beside versions.
    pub digests: bool,
    /// How bins are delegated to.
    pub delegation: Delegation,
}

/// How bins are delegated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delegation {
    /// By `succinct_roles` (TAP 15).
    Succinct,
    /// By `path_hash_prefixes`.
    Prefixes,
}

impl Default for Shape {
    /// 16,384 bins of 1,000 targets, as PEP 458 counts for Python's index, eight of them made.
    fn default() -> Self {
        Self { bits: 14, targets: 1000, bins: 8, digests: false, delegation: Delegation::Succinct }
    }
}

/// A repository on disk: `metadata/` as it is published, `root.json` as the anchor.
#[derive(Debug)]
pub struct BinRepository {
    folder: PathBuf,
    shape: Shape,
    key: SigningKey,
    version: Version,
    bins: BTreeMap<u32, Targets>,
    snapshot: Snapshot,
}

impl BinRepository {
    /// Makes a repository in `folder`.
    pub fn make(folder: &Path, shape: Shape) -> io::Result<Self> {
        Self::make_with(folder, shape, &[])
    }

    /// Makes a repository in `folder` that lists these files too, in the bins that they belong to.
    pub fn make_with(folder: &Path, shape: Shape, files: &[(TargetPath, TargetFile)]) -> io::Result<Self> {
        fs::create_dir_all(folder.join("metadata"))?;
        let seed: [u8; 32] = Sha256::digest(b"a key for benchmarks").into();
        let mut repository = Self {
            folder: folder.to_owned(),
            shape,
            key: SigningKey::from_bytes(&seed),
            version: Version::FIRST,
            bins: made_bins(&shape, files),
            snapshot: Snapshot::new(expires(), BTreeMap::new()),
        };
        let root = repository.sign(&repository.root())?;
        fs::write(folder.join("root.json"), &root)?;
        repository.write("1.root.json", &root)?;
        repository.write_targets()?;
        let all: Vec<u32> = repository.bins.keys().copied().collect();
        repository.list_absent_bins()?;
        repository.write_bins(&all)?;
        repository.write_snapshot()?;
        Ok(repository)
    }

    /// Publishes the next version, in which the first `count` bins that exist changed.
    pub fn change(&mut self, count: usize) -> io::Result<()> {
        self.version = self.version.next().map_err(io::Error::other)?;
        let changed: Vec<u32> = self.bins.keys().copied().take(count).collect();
        for bin in &changed {
            if let Some(targets) = self.bins.get_mut(bin) {
                targets.version = self.version;
            }
        }
        self.write_bins(&changed)?;
        self.write_snapshot()
    }

    /// How it delegates to its bins.
    pub fn delegation(&self) -> Delegation {
        self.shape.delegation
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The bytes of a metadata file.
    pub fn file(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.folder.join("metadata").join(name))
    }

    /// One target of each bin that exists.
    pub fn targets(&self) -> impl Iterator<Item = &TargetPath> {
        self.bins.values().filter_map(|bin| bin.targets.keys().next())
    }

    fn root(&self) -> Root {
        let keys = RoleKeys { keyids: vec![self.keyid()], threshold: NonZeroU32::MIN, extra: Extra::new() };
        let names = [RoleName::root(), RoleName::timestamp(), RoleName::snapshot(), RoleName::targets()];
        let mut root = Root::new(expires(), names.map(|name| (name, keys.clone())).into());
        root.keys.insert(self.keyid(), self.public());
        root
    }

    fn write_targets(&mut self) -> io::Result<()> {
        let mut targets = Targets::new(expires());
        let (keyids, threshold) = (vec![self.keyid()], NonZeroU32::MIN);
        let mut delegations = Delegations {
            keys: BTreeMap::from([(self.keyid(), self.public())]),
            roles: None,
            succinct_roles: None,
            extra: Extra::new(),
        };
        match self.shape.delegation {
            Delegation::Succinct => {
                delegations.succinct_roles = Some(SuccinctRoles {
                    keyids,
                    threshold,
                    bit_length: self.shape.bits,
                    name_prefix: PREFIX.to_owned(),
                    extra: Extra::new(),
                });
            }
            Delegation::Prefixes => {
                let role = |bin| DelegatedRole {
                    name: self.name(bin),
                    keyids: keyids.clone(),
                    threshold,
                    terminating: true,
                    paths: None,
                    path_hash_prefixes: Some(self.prefixes(bin)),
                    extra: Extra::new(),
                };
                delegations.roles = Some((0..1 << self.shape.bits).map(role).collect());
            }
        }
        targets.delegations = Some(delegations);
        let bytes = self.sign(&targets)?;
        self.list(&RoleName::targets(), Version::FIRST, &bytes);
        self.write("1.targets.json", &bytes)
    }

    /// Lists the bins that do not exist like those that do; nobody asks for them.
    fn list_absent_bins(&mut self) -> io::Result<()> {
        let absent = (0..1 << self.shape.bits).filter(|bin| !self.bins.contains_key(bin)).collect::<Vec<u32>>();
        for bin in absent {
            self.list(&self.name(bin), Version::FIRST, &bin.to_be_bytes());
        }
        Ok(())
    }

    fn write_bins(&mut self, bins: &[u32]) -> io::Result<()> {
        for bin in bins {
            let Some(targets) = self.bins.get(bin) else { continue };
            let (name, version, bytes) = (self.name(*bin), targets.version, self.sign(targets)?);
            self.list(&name, version, &bytes);
            self.write(&name.versioned_file_name(version), &bytes)?;
        }
        Ok(())
    }

    fn write_snapshot(&mut self) -> io::Result<()> {
        self.snapshot.version = self.version;
        let bytes = self.sign(&self.snapshot)?;
        self.write(&format!("{}.snapshot.json", self.version), &bytes)?;
        let mut timestamp = Timestamp::new(expires(), meta(self.version, &bytes, self.shape.digests));
        timestamp.version = self.version;
        let bytes = self.sign(&timestamp)?;
        self.write("timestamp.json", &bytes)
    }

    fn list(&mut self, role: &RoleName, version: Version, bytes: &[u8]) {
        self.snapshot.meta.insert(role.meta_key(), meta(version, bytes, self.shape.digests));
    }

    fn name(&self, bin: u32) -> RoleName {
        let digits = usize::try_from(self.shape.bits.div_ceil(4)).unwrap_or(8);
        RoleName::new(&format!("{PREFIX}-{bin:0digits$x}")).unwrap_or_else(|_| RoleName::targets())
    }

    /// The hash prefixes of a bin: as many hexadecimal digits as its number needs, several where it is no multiple of 4.
    fn prefixes(&self, bin: u32) -> Vec<String> {
        let digits = self.shape.bits.div_ceil(4);
        let spread = 1_u32 << (digits * 4 - self.shape.bits);
        let width = usize::try_from(digits).unwrap_or(8);
        (0..spread).map(|n| format!("{:0width$x}", bin * spread + n)).collect()
    }

    fn public(&self) -> Key {
        Key::ed25519(self.key.verifying_key().as_bytes())
    }

    fn keyid(&self) -> KeyId {
        self.public().new_id().unwrap_or_else(|error| unreachable!("a key of three strings has an id: {error}"))
    }

    fn sign(&self, signed: &impl Serialize) -> io::Result<Vec<u8>> {
        let message = canonical::of(signed).map_err(io::Error::other)?;
        let sig = hex::encode(self.key.sign(&message).to_bytes());
        let signature = Signature { keyid: self.keyid(), sig, extra: Extra::new() };
        Ok(serde_json::to_vec(&Document { signatures: vec![signature], signed })?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        fs::write(self.folder.join("metadata").join(name), bytes)
    }
}

fn expires() -> Time {
    EXPIRES.parse().unwrap_or(Time::MAX)
}

fn meta(version: Version, bytes: &[u8], digests: bool) -> MetaFile {
    let mut meta = MetaFile::new(version);
    if digests {
        meta.length = u64::try_from(bytes.len()).ok();
        meta.hashes = Digests::new([Digest::sha256(bytes)]).map(|digests| (&digests).into());
    }
    meta
}

/// The bins that exist, filled with the first files whose paths' hashes fall into them, beside those that are given.
fn made_bins(shape: &Shape, files: &[(TargetPath, TargetFile)]) -> BTreeMap<u32, Targets> {
    let all = 1_u64 << shape.bits;
    let chosen = |n: u64| u32::try_from(n * all / u64::from(shape.bins.max(1))).unwrap_or(0);
    let mut bins: BTreeMap<u32, Targets> =
        (0..u64::from(shape.bins)).map(|n| (chosen(n), Targets::new(expires()))).collect();
    for (path, file) in files {
        let bin = bins.entry(bin_of(path, shape.bits)).or_insert_with(|| Targets::new(expires()));
        bin.targets.insert(path.clone(), file.clone());
    }
    let mut lacking = bins.len();
    for number in 0_u64.. {
        if lacking == 0 {
            break;
        }
        let (path, file) = target(number);
        let Some(bin) = bins.get_mut(&bin_of(&path, shape.bits)) else { continue };
        if bin.targets.len() < shape.targets {
            bin.targets.insert(path, file);
            lacking -= usize::from(bin.targets.len() == shape.targets);
        }
    }
    bins
}

/// The bin that a path belongs to (TAP 15: the first bits of its SHA-256).
fn bin_of(path: &TargetPath, bits: u32) -> u32 {
    let hash = Sha256::digest(path.as_str());
    hash.first_chunk().copied().map_or(0, u32::from_be_bytes) >> (32 - bits)
}

/// The file of that number: its path as Python's index lays files out, its length, its digest.
pub fn target(number: u64) -> (TargetPath, TargetFile) {
    let hash = hex::encode(Sha256::digest(number.to_be_bytes()));
    let (a, rest) = hash.split_at(2);
    let (b, rest) = rest.split_at(2);
    let path = format!("{a}/{b}/{rest}/project_{:06}-1.{}-py3-none-any.whl", number / 40, number % 40);
    let path = TargetPath::new(&path).unwrap_or_else(|error| unreachable!("a short plain path: {error}"));
    let digest = Digest::from_hex(Algorithm::Sha256, &hash).ok().and_then(|digest| Digests::new([digest]));
    let digests = digest.unwrap_or_else(|| unreachable!("64 hexadecimal digits are a SHA-256"));
    (path, TargetFile::new(10_000 + number % 90_000, &digests))
}
