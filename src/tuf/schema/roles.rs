//! The four documents, and the envelope that they are signed in (§4.2 to §4.6).

use std::{collections::BTreeMap, num::NonZeroU32};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Delegations, Extra, Kind, MetaFile, Table, TableText, TargetFile, Version,
    header::{SpecVersion, expires},
};
use crate::tuf::names::{KeyId, RoleName, TargetPath};

/// A public key as metadata has it (KEY of §4.2.2). One of an unknown type is kept; it never counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// `ed25519`, `ecdsa`, `ecdsa-sha2-nistp256`, `rsa`, …
    pub keytype: String,
    /// `ed25519`, `ecdsa-sha2-nistp256`, `ecdsa-sha2-nistp384`, `rsassa-pss-sha256`, …
    pub scheme: String,
    /// `{"public": …}`, and whatever else the type has.
    pub keyval: Extra,
    /// Members that are not known, `keyid_hash_algorithms` among them.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Who may sign a top-level role, and how many must (ROLE of §4.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// Who may sign.
    pub keyids: Vec<KeyId>,
    /// How many distinct keys must; at least 1.
    pub threshold: NonZeroU32,
    /// Members that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One signature (§4.2.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Of which key it is said to be.
    pub keyid: KeyId,
    /// Hexadecimal digits; whatever else stands there, an empty string for instance, is no valid signature.
    pub sig: String,
    /// Members that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A signed document to be written: `{"signatures": […], "signed": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document<T> {
    /// The signatures, each over the canonical form of `signed`, see [`crate::tuf::canonical::of`].
    pub signatures: Vec<Signature>,
    /// What is signed.
    pub signed: T,
}

impl<T> Document<T> {
    /// A document that nobody has signed yet.
    pub fn unsigned(signed: T) -> Self {
        Self { signatures: Vec::new(), signed }
    }
}

/// What a document lists that is bounded in number, see [`crate::tuf::Limits`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Keys.
    pub(in crate::tuf) keys: usize,
    /// The most keyids of one role.
    pub(in crate::tuf) keyids: usize,
    /// Named roles that it delegates to.
    pub(in crate::tuf) delegations: usize,
}

/// A document that can be signed and verified.
pub trait Role: DeserializeOwned + Clone + Send + Sync + 'static {
    /// Its `_type`.
    const KIND: Kind;
    /// The member, in quotes, that is left as text and put in by [`Role::attach`].
    #[doc(hidden)]
    const TABLE: Option<&'static [u8]> = None;
    /// Its `_type` as it stands.
    fn kind(&self) -> Kind;
    /// Its version.
    fn version(&self) -> Version;
    /// When it stops being trusted.
    fn expires(&self) -> jiff::Timestamp;
    /// What the types cannot say; the text says what is wrong.
    #[doc(hidden)]
    fn check(&self) -> Result<(), String>;
    /// What the document lists that is bounded in number.
    #[doc(hidden)]
    fn counts(&self) -> Counts {
        Counts::default()
    }
    /// Takes the member [`Role::TABLE`].
    #[doc(hidden)]
    fn attach(&mut self, table: TableText) -> Result<(), String> {
        let _ = table;
        Ok(())
    }
}

macro_rules! role {
    ($kind:ident, $type:ty $(, $table:literal => $member:ident)?) => {
        impl Role for $type {
            const KIND: Kind = Kind::$kind;
            $(const TABLE: Option<&'static [u8]> = Some($table);)?
            fn kind(&self) -> Kind {
                self.kind
            }
            fn version(&self) -> Version {
                self.version
            }
            fn expires(&self) -> jiff::Timestamp {
                self.expires
            }
            fn check(&self) -> Result<(), String> {
                self.check_members()
            }
            fn counts(&self) -> Counts {
                self.count_members()
            }
            $(fn attach(&mut self, table: TableText) -> Result<(), String> {
                self.$member = Table::read(table)?;
                Ok(())
            })?
        }
    };
}

/// Root: the keys of the top-level roles (§4.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    #[serde(rename = "_type")]
    kind: Kind,
    spec_version: SpecVersion,
    /// Its version.
    pub version: Version,
    /// When it stops being trusted.
    #[serde(with = "expires")]
    pub expires: jiff::Timestamp,
    /// Whether file names carry versions and hashes (§6.2); left out, they do not.
    #[serde(default)]
    pub consistent_snapshot: bool,
    /// The keys that the roles refer to.
    pub keys: BTreeMap<KeyId, Key>,
    /// Keys and thresholds of `root`, `timestamp`, `snapshot` and `targets`, and of others that are not used.
    pub roles: BTreeMap<RoleName, RoleKeys>,
    /// Members that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}
role!(Root, Root);

/// Timestamp: which snapshot is the current one (§4.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    #[serde(rename = "_type")]
    kind: Kind,
    spec_version: SpecVersion,
    /// Its version.
    pub version: Version,
    /// When it stops being trusted.
    #[serde(with = "expires")]
    pub expires: jiff::Timestamp,
    /// The entry of `snapshot.json`, and of others that are not used.
    pub meta: BTreeMap<String, MetaFile>,
    /// Members that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}
role!(Timestamp, Timestamp);

/// Snapshot: which versions of all targets roles belong together (§4.4). Whole, to be written, or a [`SignedSnapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot<Meta = BTreeMap<String, MetaFile>> {
    #[serde(rename = "_type")]
    kind: Kind,
    spec_version: SpecVersion,
    /// Its version.
    pub version: Version,
    /// When it stops being trusted.
    #[serde(with = "expires")]
    pub expires: jiff::Timestamp,
    /// An entry for each targets role, by `<name>.json`.
    pub meta: Meta,
    /// Members that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}
role!(Snapshot, Snapshot);
role!(Snapshot, SignedSnapshot, b"\"meta\"" => meta);

/// A snapshot that was read: its entries are looked up in the text that was signed.
pub type SignedSnapshot = Snapshot<Table<MetaFile>>;

/// Targets: which files are signed, and who else may sign files (§4.5). Whole, to be written, or [`SignedTargets`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets<Files = BTreeMap<TargetPath, TargetFile>> {
    #[serde(rename = "_type")]
    kind: Kind,
    spec_version: SpecVersion,
    /// Its version.
    pub version: Version,
    /// When it stops being trusted.
    #[serde(with = "expires")]
    pub expires: jiff::Timestamp,
    /// The files, by path.
    pub targets: Files,
    /// Who else may sign files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegations: Option<Delegations>,
    /// Members that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}
role!(Targets, Targets);
role!(Targets, SignedTargets, b"\"targets\"" => targets);

/// Targets that were read: its files are looked up in the text that was signed.
pub type SignedTargets = Targets<Table<TargetFile>>;

const SNAPSHOT_FILE: &str = "snapshot.json";

impl Root {
    /// A root of version 1 without keys.
    pub fn new(expires: jiff::Timestamp, roles: BTreeMap<RoleName, RoleKeys>) -> Self {
        Self {
            kind: Kind::Root,
            spec_version: SpecVersion::default(),
            version: Version::FIRST,
            expires,
            consistent_snapshot: true,
            keys: BTreeMap::new(),
            roles,
            extra: Extra::new(),
        }
    }

    /// Whether what does not concern keys and expiry is as [`Root::new`] writes it, and no member is unknown.
    pub fn has_own_form(&self) -> bool {
        let form = (self.kind, &self.spec_version, self.consistent_snapshot);
        form == (Kind::Root, &SpecVersion::default(), true) && self.extra.is_empty()
    }

    fn check_members(&self) -> Result<(), String> {
        for name in ["root", "timestamp", "snapshot", "targets"] {
            if !self.roles.contains_key(name) {
                return Err(format!("root names no keys for role {name}"));
            }
        }
        Ok(())
    }

    fn count_members(&self) -> Counts {
        let keyids = self.roles.values().map(|role| role.keyids.len()).max().unwrap_or(0);
        Counts { keys: self.keys.len(), keyids, delegations: 0 }
    }
}

impl Timestamp {
    /// A timestamp of version 1 over that snapshot.
    pub fn new(expires: jiff::Timestamp, snapshot: MetaFile) -> Self {
        Self {
            kind: Kind::Timestamp,
            spec_version: SpecVersion::default(),
            version: Version::FIRST,
            expires,
            meta: BTreeMap::from([(SNAPSHOT_FILE.to_owned(), snapshot)]),
            extra: Extra::new(),
        }
    }

    /// What it says of the snapshot; in verified metadata never `None`.
    pub fn snapshot(&self) -> Option<&MetaFile> {
        self.meta.get(SNAPSHOT_FILE)
    }

    fn check_members(&self) -> Result<(), String> {
        self.snapshot().map(drop).ok_or_else(|| "timestamp does not list snapshot.json".to_owned())
    }

    fn count_members(&self) -> Counts {
        Counts::default()
    }
}

impl Snapshot {
    /// A snapshot of version 1 that lists `meta`, by `<role name>.json`.
    pub fn new(expires: jiff::Timestamp, meta: BTreeMap<String, MetaFile>) -> Self {
        Self {
            kind: Kind::Snapshot,
            spec_version: SpecVersion::default(),
            version: Version::FIRST,
            expires,
            meta,
            extra: Extra::new(),
        }
    }
}

impl SignedSnapshot {
    /// What it says of a targets role.
    ///
    /// # Errors
    /// Says what is wrong with the entry.
    pub fn role(&self, name: &RoleName) -> Result<Option<MetaFile>, String> {
        self.meta.get(&name.meta_key())
    }

    /// The same as a whole, to be changed and written.
    ///
    /// # Errors
    /// Says what is wrong with an entry.
    pub fn to_whole(&self) -> Result<Snapshot, String> {
        let entries = self.meta.iter().map(|(name, entry)| Ok((name.into_owned(), entry?)));
        let Self { kind, spec_version, version, expires, extra, .. } = self.clone();
        Ok(Snapshot { kind, spec_version, version, expires, meta: entries.collect::<Result<_, String>>()?, extra })
    }
}

impl<Meta> Snapshot<Meta> {
    fn check_members(&self) -> Result<(), String> {
        Ok(())
    }

    fn count_members(&self) -> Counts {
        Counts::default()
    }
}

impl Targets {
    /// Targets of version 1 that list and delegate nothing.
    pub fn new(expires: jiff::Timestamp) -> Self {
        Self {
            kind: Kind::Targets,
            spec_version: SpecVersion::default(),
            version: Version::FIRST,
            expires,
            targets: BTreeMap::new(),
            delegations: None,
            extra: Extra::new(),
        }
    }
}

impl SignedTargets {
    /// The paths of all files that it lists itself, in their order.
    pub fn paths(&self) -> impl Iterator<Item = TargetPath> {
        // Names that are no target paths do not pass the reading.
        self.targets.keys().filter_map(|path| TargetPath::new(&path).ok())
    }

    /// The same as a whole, to be changed and written.
    ///
    /// # Errors
    /// Says what is wrong with a file's entry.
    pub fn to_whole(&self) -> Result<Targets, String> {
        let path = |name: &str| TargetPath::new(name).map_err(|error| error.to_string());
        let files = self.targets.iter().map(|(name, file)| Ok((path(&name)?, file?)));
        let Self { kind, spec_version, version, expires, delegations, extra, .. } = self.clone();
        let targets = files.collect::<Result<_, String>>()?;
        Ok(Targets { kind, spec_version, version, expires, targets, delegations, extra })
    }
}

impl<Files> Targets<Files> {
    /// Whether type and version of the specification are as [`Targets::new`] writes them, and no member is unknown.
    pub fn has_own_form(&self) -> bool {
        self.kind == Kind::Targets && self.spec_version == SpecVersion::default() && self.extra.is_empty()
    }

    fn check_members(&self) -> Result<(), String> {
        self.delegations.as_ref().map_or(Ok(()), Delegations::check)
    }

    fn count_members(&self) -> Counts {
        let Some(delegations) = &self.delegations else { return Counts::default() };
        let named = delegations.roles.iter().flatten().map(|role| role.keyids.len());
        let succinct = delegations.succinct_roles.iter().map(|roles| roles.keyids.len());
        Counts {
            keys: delegations.keys.len(),
            keyids: named.chain(succinct).max().unwrap_or(0),
            delegations: delegations.roles.as_ref().map_or(0, Vec::len),
        }
    }
}
