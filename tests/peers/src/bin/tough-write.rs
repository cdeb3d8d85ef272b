//! Writes a repository with tough: `FOLDER ed25519|ecdsa|rsa paths|hash-prefixes consistent|plain`.
//!
//! The files below `FOLDER/incoming` become targets. Run again, it publishes the next version with the same keys.
//! With `paths`, `demo/*` belongs to the role `projects` (two signatures of two) and `deps/*` to `projects/deps` below it.
//! With `hash-prefixes` every target belongs to one of sixteen bins by the first digit of its path's SHA-256.

use std::{
    collections::HashMap,
    env, fs,
    num::NonZeroU64,
    path::{Path, PathBuf},
    process::ExitCode,
};

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use jiff::{Timestamp, ToSpan};
use pem_rfc7468::LineEnding;
use sha2::{Digest, Sha256};
use tough::{
    editor::{RepositoryEditor, signed::SignedRole},
    key_source::{KeySource, LocalKeySource},
    schema::{KeyHolder, PathHashPrefix, PathPattern, PathSet, RoleKeys, RoleType, Root, Target},
};
use tufgate_peers::{Outcome, exit, files_below};

const TOP: [RoleType; 4] = [RoleType::Root, RoleType::Timestamp, RoleType::Snapshot, RoleType::Targets];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit(write().await)
}

async fn write() -> Outcome {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, kind, shape, layout] = arguments.as_slice() else {
        return Err("usage: FOLDER ed25519|ecdsa|rsa paths|hash-prefixes consistent|plain".into());
    };
    let keys = Keys { folder: Path::new(folder).join("keys"), kind: kind.clone() };
    let repository = Repository { folder: folder.into(), keys, consistent: layout == "consistent" };
    repository.begin().await?;
    repository.publish(shape == "paths").await
}

struct Repository {
    folder: PathBuf,
    keys: Keys,
    consistent: bool,
}

/// A role that tough is to write, with the targets it lists.
struct Delegated {
    name: String,
    paths: PathSet,
    threshold: u8,
    targets: Vec<String>,
    /// Delegated by the role before it rather than by the top-level targets role.
    nested: bool,
}

impl Repository {
    /// Keys, the first root and the folders, unless they are there.
    async fn begin(&self) -> Outcome {
        for name in ["metadata", "targets"] {
            fs::create_dir_all(self.folder.join(name))?;
        }
        if self.anchor().exists() {
            return Ok(());
        }
        let mut root = Root {
            spec_version: "1.0.0".to_owned(),
            consistent_snapshot: self.consistent,
            version: NonZeroU64::MIN,
            expires: in_days(365),
            keys: HashMap::new(),
            roles: HashMap::new(),
            _extra: HashMap::new(),
        };
        for role in TOP {
            let key = self.keys.of(&role.to_string(), 1)?.remove(0).as_sign().await?.tuf_key();
            let keyids = vec![key.key_id()?];
            root.keys.insert(key.key_id()?, key);
            root.roles.insert(role, RoleKeys { keyids, threshold: NonZeroU64::MIN, _extra: HashMap::new() });
        }
        let holder = KeyHolder::Root(root.clone());
        let signed = SignedRole::new(root, &holder, &self.keys.of("root", 1)?, &SystemRandom::new()).await?;
        signed.write(self.folder.join("metadata"), self.consistent).await?;
        Ok(fs::write(self.anchor(), signed.buffer())?)
    }

    async fn publish(&self, by_paths: bool) -> Outcome {
        let version = self.next_version()?;
        let names = files_below(&self.folder.join("incoming"))?;
        let roles = if by_paths { projects(&names)? } else { bins(&names)? };
        let mut editor = RepositoryEditor::new(self.anchor()).await?;
        let mut top = Vec::new();
        for role in TOP {
            top.extend(self.keys.of(&role.to_string(), 1)?);
        }
        editor.targets_version(version)?.targets_expires(in_days(90))?;
        let delegated = |name: &String| roles.iter().any(|role| role.targets.contains(name));
        for name in names.iter().filter(|name| !delegated(name)) {
            self.list(&mut editor, name).await?;
        }
        for role in roles.iter().filter(|role| !role.nested) {
            self.delegate(&mut editor, role, version).await?;
        }
        editor.sign_targets_editor(&top).await?;
        for (role, below) in roles.iter().zip(roles.iter().skip(1).map(Some).chain([None])) {
            editor.change_delegated_targets(&role.name)?;
            editor.targets_version(version)?.targets_expires(in_days(90))?;
            for name in &role.targets {
                self.list(&mut editor, name).await?;
            }
            if let Some(below) = below.filter(|below| below.nested) {
                self.delegate(&mut editor, below, version).await?;
            }
            editor.sign_targets_editor(&self.keys.of(&role.name, role.threshold)?).await?;
        }
        editor.snapshot_version(version).snapshot_expires(in_days(7));
        editor.timestamp_version(version).timestamp_expires(in_days(1));
        Ok(editor.sign(&top).await?.write(self.folder.join("metadata")).await?)
    }

    async fn delegate(&self, editor: &mut RepositoryEditor, role: &Delegated, version: NonZeroU64) -> Outcome {
        let keys = self.keys.of(&role.name, role.threshold)?;
        let threshold = NonZeroU64::new(role.threshold.into()).ok_or("a threshold of 0")?;
        editor.delegate_role(&role.name, &keys, role.paths.clone(), false, threshold, in_days(90), version).await?;
        Ok(())
    }

    /// Lists a target and lays it down where TUF 1.0.34 §5.7.3 has it (tough's own copy knows no folders).
    async fn list(&self, editor: &mut RepositoryEditor, name: &str) -> Outcome {
        let file = self.folder.join("incoming").join(name);
        editor.add_target(name, Target::from_path(&file).await?)?;
        let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
        let folder = self.folder.join("targets").join(folder);
        fs::create_dir_all(&folder)?;
        let digest = hex(&Sha256::digest(fs::read(&file)?));
        let stored = if self.consistent { format!("{digest}.{last}") } else { last.to_owned() };
        fs::copy(file, folder.join(stored))?;
        Ok(())
    }

    fn anchor(&self) -> PathBuf {
        self.folder.join("root.json")
    }

    /// The number of publications, this one included.
    fn next_version(&self) -> Outcome<NonZeroU64> {
        let record = self.folder.join("publications");
        let past = fs::read(&record).map_or(0, |bytes| bytes.len() as u64);
        fs::write(record, vec![b'.'; past as usize + 1])?;
        Ok(NonZeroU64::MIN.saturating_add(past))
    }
}

fn projects(names: &[String]) -> Outcome<Vec<Delegated>> {
    let below = |folder: &str| names.iter().filter(|name| name.starts_with(folder)).cloned().collect();
    let paths = |patterns: &[&str]| -> Outcome<PathSet> {
        Ok(PathSet::Paths(patterns.iter().map(|pattern| PathPattern::new(*pattern)).collect::<Result<_, _>>()?))
    };
    let projects = Delegated {
        name: "projects".to_owned(),
        paths: paths(&["demo/*", "deps/*"])?,
        threshold: 2,
        targets: below("demo/"),
        nested: false,
    };
    let deps = Delegated {
        name: "projects/deps".to_owned(),
        paths: paths(&["deps/*"])?,
        threshold: 1,
        targets: below("deps/"),
        nested: true,
    };
    Ok(vec![projects, deps])
}

fn bins(names: &[String]) -> Outcome<Vec<Delegated>> {
    let bin = |digit: char| {
        let listed = |name: &&String| hex(&Sha256::digest(name.as_bytes())).starts_with(digit);
        Ok(Delegated {
            name: format!("bin-{digit}"),
            paths: PathSet::PathHashPrefixes(vec![PathHashPrefix::new(digit)?]),
            threshold: 1,
            targets: names.iter().filter(listed).cloned().collect(),
            nested: false,
        })
    };
    "0123456789abcdef".chars().map(bin).collect()
}

/// The private keys, in files that tough reads.
struct Keys {
    folder: PathBuf,
    kind: String,
}

impl Keys {
    /// So many keys of a role, made at first use.
    fn of(&self, role: &str, count: u8) -> Outcome<Vec<Box<dyn KeySource>>> {
        fs::create_dir_all(&self.folder)?;
        let mut sources: Vec<Box<dyn KeySource>> = Vec::new();
        for number in 0..count {
            let path = self.folder.join(format!("{}-{number}", role.replace('/', "+")));
            if !path.exists() {
                fs::write(&path, self.generate()?)?;
            }
            sources.push(Box::new(LocalKeySource { path }));
        }
        Ok(sources)
    }

    fn generate(&self) -> Outcome<Vec<u8>> {
        let random = SystemRandom::new();
        Ok(match self.kind.as_str() {
            "ed25519" => Ed25519KeyPair::generate_pkcs8(&random)?.as_ref().to_vec(),
            "ecdsa" => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)?.as_ref().to_vec(),
            "rsa" => {
                let key = KeyPair::generate(KeySize::Rsa2048)?;
                pem_rfc7468::encode_string("PRIVATE KEY", LineEnding::LF, key.as_der()?.as_ref())?.into_bytes()
            }
            other => return Err(format!("no kind of key: {other}").into()),
        })
    }
}

fn in_days(days: i64) -> Timestamp {
    // Seconds are the format's smallest unit (TUF 1.0.34 §4.2.1).
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
    now.saturating_add((days * 24).hours()).unwrap_or(Timestamp::MAX)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
