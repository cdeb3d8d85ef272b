//! A TUF repository in memory, whose documents and signers a test may bend before it publishes.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
};

use bytes::Bytes;
use ed25519_dalek::Signer as _;
use jiff::Timestamp as Time;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    base::{Algorithm, Digest, Digests, Hasher},
    tuf::{
        Floors, KeyId, RoleName, RootStage, Step, TargetInfo, TargetPath, TrustedSet, TufError, Version, canonical,
        schema::{
            DelegatedRole, Delegations, Document, Extra, Key, MetaFile, Role, RoleKeys, Root, Signature, Snapshot,
            SuccinctRoles, TargetFile, Targets, Timestamp,
        },
    },
};

/// DER of a SubjectPublicKeyInfo of P-256 up to its point.
const SPKI_P256: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
/// The same of P-384.
const SPKI_P384: &str = "3076301006072a8648ce3d020106052b81040022036200";
/// The same of Ed25519.
const SPKI_ED25519: &str = "302a300506032b6570032100";

/// A private key.
#[derive(Debug)]
pub struct TestKey {
    /// Its keyid.
    pub id: KeyId,
    /// Its public part.
    pub key: Key,
    secret: Secret,
}

#[derive(Debug)]
enum Secret {
    Ed25519(ed25519_dalek::SigningKey),
    Ecdsa(EcdsaKeyPair),
}

impl TestKey {
    /// An Ed25519 key that is the same for the same `seed`.
    pub fn ed25519(seed: u64) -> Self {
        let digest = Digest::sha256(&seed.to_be_bytes());
        let secret = ed25519_dalek::SigningKey::from_bytes(digest.as_bytes().try_into().unwrap());
        Self::new(Key::ed25519(secret.verifying_key().as_bytes()), Secret::Ed25519(secret))
    }

    /// A new ECDSA key on P-256, keytype `ecdsa`, in PEM.
    pub fn ecdsa_p256() -> Self {
        let secret = ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING);
        let pem = spki_pem(SPKI_P256, secret.public_key().as_ref());
        Self::new(Key::ecdsa_p256(pem), Secret::Ecdsa(secret))
    }

    /// A new ECDSA key on P-384, in PEM.
    pub fn ecdsa_p384() -> Self {
        let secret = ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING);
        let pem = spki_pem(SPKI_P384, secret.public_key().as_ref());
        let key = Key { scheme: "ecdsa-sha2-nistp384".to_owned(), ..Key::ecdsa_p256(pem) };
        Self::new(key, Secret::Ecdsa(secret))
    }

    fn new(key: Key, secret: Secret) -> Self {
        Self { id: key.new_id().unwrap(), key, secret }
    }

    /// The raw public part: 32 bytes, or a point.
    pub fn raw_public(&self) -> Vec<u8> {
        match &self.secret {
            Secret::Ed25519(secret) => secret.verifying_key().as_bytes().to_vec(),
            Secret::Ecdsa(secret) => secret.public_key().as_ref().to_vec(),
        }
    }

    /// The same key under another keyid.
    #[must_use]
    pub fn alias(&self, id: &str) -> Self {
        let secret = match &self.secret {
            Secret::Ed25519(secret) => Secret::Ed25519(secret.clone()),
            Secret::Ecdsa(_) => panic!("only Ed25519 keys have aliases here"),
        };
        Self { id: KeyId::new(id).unwrap(), key: self.key.clone(), secret }
    }

    /// The same key in another form, or of another declared type.
    #[must_use]
    pub fn with_public(mut self, keytype: &str, public: &str) -> Self {
        self.key.keytype = keytype.to_owned();
        self.key.keyval.insert("public".to_owned(), public.into());
        self
    }

    /// An Ed25519 key in PEM.
    pub fn ed25519_pem(raw: &[u8]) -> String {
        spki_pem(SPKI_ED25519, raw)
    }

    /// Its signature over `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let raw = match &self.secret {
            Secret::Ed25519(secret) => secret.sign(message).to_bytes().to_vec(),
            Secret::Ecdsa(secret) => secret.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
        };
        Signature { keyid: self.id.clone(), sig: hex::encode(raw), extra: Extra::new() }
    }
}

fn ecdsa(algorithm: &'static ring::signature::EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap()
}

fn spki_pem(prefix: &str, raw: &[u8]) -> String {
    let der = [hex::decode(prefix).unwrap().as_slice(), raw].concat();
    pem_rfc7468::encode_string("PUBLIC KEY", pem_rfc7468::LineEnding::LF, &der).unwrap()
}

/// A document signed by each of `keys`, as bytes.
pub fn signed_by<'k>(signed: &impl Serialize, keys: impl IntoIterator<Item = &'k TestKey>) -> Bytes {
    let message = canonical::of(signed).unwrap();
    let signatures = keys.into_iter().map(|key| key.sign(&message)).collect();
    serde_json::to_vec(&Document { signatures, signed }).unwrap().into()
}

/// Keys and threshold of a role.
pub fn role_keys(keys: &[TestKey], threshold: u32) -> RoleKeys {
    let keyids = keys.iter().map(|key| key.id.clone()).collect();
    RoleKeys { keyids, threshold: NonZeroU32::new(threshold).unwrap(), extra: Extra::new() }
}

/// Digests of `content`, in the named algorithms.
pub fn digests(content: &[u8], algorithms: &[Algorithm]) -> Digests {
    let mut hasher = Hasher::new(algorithms.iter().copied());
    hasher.update(content);
    Digests::new(hasher.finish()).unwrap()
}

/// A repository: its documents, who signs them, and the files as published last.
#[derive(Debug)]
pub struct TestRepository {
    /// Root.
    pub root: Root,
    /// Timestamp; its entry of the snapshot is written by [`TestRepository::publish`].
    pub timestamp: Timestamp,
    /// Snapshot; its entries are written by [`TestRepository::publish`].
    pub snapshot: Snapshot,
    /// Top-level targets.
    pub targets: Targets,
    /// Delegated targets.
    pub delegated: BTreeMap<RoleName, Targets>,
    /// Who signs each role.
    pub signers: BTreeMap<RoleName, Vec<TestKey>>,
    /// Whether lengths and digests of metadata are listed beside versions.
    pub list_digests: bool,
    /// The published metadata, by file name.
    pub files: BTreeMap<String, Bytes>,
    seed: u64,
}

impl TestRepository {
    /// A repository with one Ed25519 key for each top-level role, consistent snapshots and no targets, whose metadata
    /// expires at `expires`. It is published.
    pub fn new(expires: Time) -> Self {
        let names = ["root", "timestamp", "snapshot", "targets"].map(|name| RoleName::new(name).unwrap());
        let nobody = names.iter().map(|name| (name.clone(), role_keys(&[], 1))).collect();
        let mut repository = Self {
            root: Root::new(expires, nobody),
            timestamp: Timestamp::new(expires, MetaFile::new(Version::FIRST)),
            snapshot: Snapshot::new(expires, BTreeMap::new()),
            targets: Targets::new(expires),
            delegated: BTreeMap::new(),
            signers: BTreeMap::new(),
            list_digests: true,
            files: BTreeMap::new(),
            seed: 0,
        };
        for name in &names {
            let key = repository.new_key();
            repository.set_keys(name.as_str(), vec![key], 1);
        }
        repository.publish();
        repository
    }

    /// An Ed25519 key that no role has yet.
    pub fn new_key(&mut self) -> TestKey {
        self.seed += 1;
        TestKey::ed25519(self.seed)
    }

    /// Gives a top-level role these keys, in root and as signers. Root itself goes on being signed by its old keys too.
    pub fn set_keys(&mut self, role: &str, keys: Vec<TestKey>, threshold: u32) {
        let name = RoleName::new(role).unwrap();
        self.root.keys.extend(keys.iter().map(|key| (key.id.clone(), key.key.clone())));
        self.root.roles.insert(name.clone(), role_keys(&keys, threshold));
        let before = self.signers.remove(&name).filter(|_| role == "root").unwrap_or_default();
        self.signers.insert(name, before.into_iter().chain(keys).collect());
    }

    /// The targets role of that name.
    pub fn role_mut(&mut self, role: &str) -> &mut Targets {
        if role == "targets" { &mut self.targets } else { self.delegated.get_mut(role).unwrap() }
    }

    /// Lists a file in a targets role.
    pub fn add_target(&mut self, role: &str, path: &str, content: &[u8]) {
        let length = u64::try_from(content.len()).unwrap();
        let file = TargetFile::new(length, &digests(content, &[Algorithm::Sha256]));
        self.role_mut(role).targets.insert(TargetPath::new(path).unwrap(), file);
    }

    /// Delegates `paths` from `by` to a role with a key of its own, which signs it beside the keys it had before.
    pub fn delegate(&mut self, by: &str, role: &str, paths: &[&str]) -> &mut DelegatedRole {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let key = self.new_key();
        let (name, keys) = self.add_delegated_key(by, role, key);
        let entry = DelegatedRole {
            name,
            keyids: keys.keyids,
            threshold: keys.threshold,
            terminating: false,
            paths: Some(paths),
            path_hash_prefixes: None,
            extra: Extra::new(),
        };
        let roles = self.delegations_mut(by).roles.get_or_insert_default();
        roles.push(entry);
        roles.last_mut().unwrap()
    }

    /// Delegates to `2^bit_length` succinct roles of one key, and makes those that `paths` fall into.
    pub fn delegate_succinct(&mut self, by: &str, prefix: &str, bit_length: u32, bins: &[&str]) {
        let expires = self.targets.expires;
        let key = self.new_key();
        let keys = role_keys(std::slice::from_ref(&key), 1);
        for bin in bins {
            let name = RoleName::new(bin).unwrap();
            let TestKey { id, key, secret: Secret::Ed25519(secret) } = &key else { unreachable!() };
            let key = TestKey { id: id.clone(), key: key.clone(), secret: Secret::Ed25519(secret.clone()) };
            self.signers.insert(name.clone(), vec![key]);
            self.delegated.insert(name, Targets::new(expires));
        }
        let delegations = self.delegations_mut(by);
        delegations.keys.insert(key.id, key.key);
        delegations.succinct_roles = Some(SuccinctRoles {
            keyids: keys.keyids,
            threshold: keys.threshold,
            bit_length,
            name_prefix: prefix.to_owned(),
            extra: Extra::new(),
        });
    }

    fn delegations_mut(&mut self, by: &str) -> &mut Delegations {
        self.role_mut(by).delegations.get_or_insert_with(|| Delegations {
            keys: BTreeMap::new(),
            roles: None,
            succinct_roles: None,
            extra: Extra::new(),
        })
    }

    fn add_delegated_key(&mut self, by: &str, role: &str, key: TestKey) -> (RoleName, RoleKeys) {
        let name = RoleName::new(role).unwrap();
        let keys = role_keys(std::slice::from_ref(&key), 1);
        self.delegations_mut(by).keys.insert(key.id.clone(), key.key.clone());
        self.signers.entry(name.clone()).or_default().push(key);
        let expires = self.targets.expires;
        self.delegated.entry(name.clone()).or_insert_with(|| Targets::new(expires));
        (name, keys)
    }

    /// Signs and publishes all documents in the versions that they have.
    pub fn publish(&mut self) {
        self.publish_root();
        self.snapshot.meta.clear();
        let delegated: Vec<_> = self.delegated.iter().map(|(name, role)| (name.clone(), role.clone())).collect();
        for (name, role) in [(RoleName::targets(), self.targets.clone())].into_iter().chain(delegated) {
            let bytes = self.publish_role(&name, &role);
            let meta = self.meta(role.version, &bytes);
            self.snapshot.meta.insert(name.meta_key(), meta);
        }
        self.publish_snapshot();
    }

    /// Signs and publishes root.
    pub fn publish_root(&mut self) {
        let bytes = signed_by(&self.root, self.signers_of("root"));
        self.files.insert(format!("{}.root.json", self.root.version), bytes);
    }

    /// Signs and publishes snapshot, with the entries that it has, and timestamp.
    pub fn publish_snapshot(&mut self) {
        let bytes = self.publish_role(&RoleName::snapshot(), &self.snapshot.clone());
        let meta = self.meta(self.snapshot.version, &bytes);
        self.timestamp.meta.insert("snapshot.json".to_owned(), meta);
        self.publish_timestamp();
    }

    /// Signs and publishes timestamp, with the entry that it has.
    pub fn publish_timestamp(&mut self) {
        let bytes = signed_by(&self.timestamp, self.signers_of("timestamp"));
        self.files.insert("timestamp.json".to_owned(), bytes);
    }

    /// Raises the version of all but root by one, and publishes.
    pub fn publish_next(&mut self) {
        let next = |version: &mut Version| *version = version.next().unwrap();
        next(&mut self.timestamp.version);
        next(&mut self.snapshot.version);
        next(&mut self.targets.version);
        self.delegated.values_mut().for_each(|role| next(&mut role.version));
        self.publish();
    }

    /// Raises the version of root by one, and publishes it.
    pub fn publish_next_root(&mut self) {
        self.root.version = self.root.version.next().unwrap();
        self.publish_root();
    }

    /// Publishes other bytes under the name of a role's present version, and lists them.
    pub fn publish_value(&mut self, role: &str, signed: &Value) -> Bytes {
        let bytes = signed_by(signed, self.signers_of(role));
        self.publish_bytes(role, bytes.clone());
        bytes
    }

    /// Publishes `bytes` as the present version of a role, and lists them, up to timestamp.
    pub fn publish_bytes(&mut self, role: &str, bytes: Bytes) {
        let name = RoleName::new(role).unwrap();
        match role {
            "root" => drop(self.files.insert(format!("{}.root.json", self.root.version), bytes)),
            "timestamp" => drop(self.files.insert("timestamp.json".to_owned(), bytes)),
            "snapshot" => {
                let meta = self.meta(self.snapshot.version, &bytes);
                self.files.insert(self.file_name(&name, self.snapshot.version), bytes);
                self.timestamp.meta.insert("snapshot.json".to_owned(), meta);
                self.publish_timestamp();
            }
            _ => {
                let version = self.role_mut(role).version;
                let meta = self.meta(version, &bytes);
                self.files.insert(self.file_name(&name, version), bytes);
                self.snapshot.meta.insert(name.meta_key(), meta);
                self.publish_snapshot();
            }
        }
    }

    fn publish_role(&mut self, name: &RoleName, role: &(impl Role + Serialize)) -> Bytes {
        let bytes = signed_by(role, self.signers_of(name.as_str()));
        self.files.insert(self.file_name(name, role.version()), bytes.clone());
        bytes
    }

    /// The keys that sign a role.
    pub fn signers_of(&self, role: &str) -> &[TestKey] {
        self.signers.get(role).map_or(&[], Vec::as_slice)
    }

    /// What the parent lists of a file.
    pub fn meta(&self, version: Version, bytes: &[u8]) -> MetaFile {
        let mut meta = MetaFile::new(version);
        if self.list_digests {
            meta.length = Some(u64::try_from(bytes.len()).unwrap());
            meta.hashes = Some((&digests(bytes, &[Algorithm::Sha256])).into());
        }
        meta
    }

    fn file_name(&self, name: &RoleName, version: Version) -> String {
        if self.root.consistent_snapshot { name.versioned_file_name(version) } else { name.file_name() }
    }

    /// A published file.
    pub fn file(&self, name: &str) -> Bytes {
        self.files.get(name).unwrap_or_else(|| panic!("{name} is not published")).clone()
    }

    /// Goes through the whole workflow from root version 1, as a client that has these floors.
    pub fn update(&self, floors: &Floors, now: Time) -> Result<TrustedSet, TufError> {
        let mut roots = RootStage::start(self.file("1.root.json"))?;
        while let Some(bytes) = self.files.get(&roots.request().file_name) {
            roots.accept_root(bytes.clone())?;
        }
        let stage = roots.finish(now)?.accept(self.file("timestamp.json"), floors, now)?;
        let bytes = self.file(&stage.request().file_name);
        let stage = stage.accept(bytes, now)?;
        let bytes = self.file(&stage.request().file_name);
        stage.accept(bytes, now)
    }

    /// Updates without floors, then looks a target up; the files that were asked for on the way, in order.
    pub fn look_up(&self, path: &str, now: Time) -> (Result<Option<TargetInfo>, TufError>, Vec<String>) {
        let mut asked = Vec::new();
        let found = self.update(&Floors::new(), now).and_then(|set| self.search(&set, path, now, &mut asked));
        (found, asked)
    }

    fn search(
        &self,
        set: &TrustedSet,
        path: &str,
        now: Time,
        asked: &mut Vec<String>,
    ) -> Result<Option<TargetInfo>, TufError> {
        let mut roles = HashMap::new();
        let mut walk = set.walk(&TargetPath::new(path).unwrap());
        loop {
            match walk.step(&roles, now)? {
                Step::Found(target) => return Ok(Some(target)),
                Step::NotListed => return Ok(None),
                Step::Need(request) => {
                    asked.push(request.file.file_name.clone());
                    let role = request.accept(self.file(&request.file.file_name), now)?;
                    roles.insert(request.key().clone(), role);
                }
            }
        }
    }
}

/// Floors as they are after that set was trusted.
pub fn floors_of(set: &TrustedSet) -> Floors {
    let mut floors = Floors::new();
    floors.record_root(set.anchor(), set.root().version());
    floors.record_timestamp(set.timestamp());
    floors.record_snapshot(set.snapshot());
    floors
}
