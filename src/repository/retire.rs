//! Old versions: kept for readers that are on their way, and for caches that still hold the timestamp which led there; then
//! removed.
//!
//! What a snapshot lists is kept as long as the snapshot is, and a snapshot for a set time after the next one stood beside
//! it, which is when that one's file was written. Versions only grow, so that what is older than all that the oldest kept
//! snapshot lists is listed by none that is kept. What the current snapshot lists is kept whatever a clock says; roots are
//! kept for ever, since clients follow them one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use jiff::Timestamp as Moment;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Layout, RepositoryError,
    journal::{stored_path, target_folder},
    layout::{METADATA_MAX, PublishLock},
    published::Online,
};
use crate::{
    base::{
        Span,
        files::{self, FileError},
    },
    tuf::{
        RoleName, TargetPath,
        schema::{Delegations, Version},
    },
};

/// What was removed of what was kept long enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Retired {
    /// Old metadata files.
    pub metadata: usize,
    /// Stored targets that no kept version signs.
    pub targets: usize,
    /// Why not all of it was removed; it is tried again with the next publication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Removes what nobody needs any more. The new timestamp is durable. Trouble is said and not an error: what was to be
/// published is.
pub(super) fn retire(layout: &Layout, lock: &PublishLock, keep: Span, now: Moment) -> Retired {
    let mut retired = Retired::default();
    if let Err(error) = Retiring::begin(layout, lock, keep, now)
        .and_then(|retiring| retiring.map_or(Ok(()), |retiring| retiring.remove(&mut retired)))
    {
        retired.trouble = Some(error.to_string());
    }
    retired
}

/// The versions of a role that lie there.
type Versions = BTreeSet<u64>;

struct Retiring<'a> {
    layout: &'a Layout,
    /// What lies there, by role.
    files: BTreeMap<RoleName, Versions>,
    /// The first version of each role that has to be kept.
    first_kept: BTreeMap<RoleName, u64>,
    current: Online,
}

impl<'a> Retiring<'a> {
    /// `None` where all snapshots are to be kept.
    fn begin(
        layout: &'a Layout,
        _lock: &PublishLock,
        keep: Span,
        now: Moment,
    ) -> Result<Option<Self>, RepositoryError> {
        let files = found(layout)?;
        let Some(snapshots) = files.get("snapshot").filter(|snapshots| snapshots.len() > 1) else { return Ok(None) };
        let current = Online::read(layout)?;
        let current_version = current.snapshot.version.get();
        // Those beyond the current one are nobody's that we know.
        let snapshots: Vec<u64> = snapshots.range(..=current_version).copied().collect();
        let mut oldest = current_version;
        for (version, next) in snapshots.iter().zip(snapshots.iter().skip(1)) {
            if !is_over(layout, *next, keep, now)? {
                oldest = *version;
                break;
            }
        }
        if snapshots.first() == Some(&oldest) {
            return Ok(None);
        }
        let mut first_kept = BTreeMap::from([(RoleName::snapshot(), oldest)]);
        #[derive(Deserialize)]
        struct Listed {
            meta: BTreeMap<String, Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            version: Version,
        }
        let Listed { meta } = read(layout, &RoleName::snapshot(), oldest)?;
        for (name, entry) in meta {
            let role = name.strip_suffix(".json").and_then(|name| RoleName::new(name).ok());
            first_kept.extend(role.map(|role| (role, entry.version.get())));
        }
        Ok(Some(Self { layout, files, first_kept, current }))
    }

    fn remove(self, retired: &mut Retired) -> Result<(), RepositoryError> {
        let mut old = Vec::new();
        for (role, versions) in &self.files {
            for version in versions {
                if self.is_old(role, *version)? {
                    old.push((role, *version));
                }
            }
        }
        // Targets before the metadata by which they are found, snapshots last: what is cut off is begun anew.
        for path in self.unsigned_targets(&old)? {
            fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
            retired.targets += 1;
            // A folder that is empty then goes too.
            let above = path.ancestors().skip(1).take_while(|folder| *folder != self.layout.targets());
            above.map(fs::remove_dir).take_while(Result::is_ok).for_each(drop);
        }
        old.sort_by_key(|(role, _)| **role == RoleName::snapshot());
        for (role, version) in old {
            let path = self.layout.metadata().join(file_name(role, version));
            fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
            retired.metadata += 1;
        }
        Ok(files::sync_folder(&self.layout.metadata())?)
    }

    /// Whether no snapshot that is kept lists this file.
    fn is_old(&self, role: &RoleName, version: u64) -> Result<bool, RepositoryError> {
        if *role == RoleName::root() || *role == RoleName::timestamp() {
            return Ok(false);
        }
        let current = match *role == RoleName::snapshot() {
            true => Some(self.current.snapshot.version),
            false => {
                let entry = self.current.snapshot.meta.get(&role.meta_key());
                let entry = entry.map_err(|why| RepositoryError::damaged(self.layout.metadata(), why))?;
                entry.map(|entry| entry.version)
            }
        };
        let is_current = current.is_some_and(|current| current.get() == version);
        Ok(!is_current && self.first_kept.get(role).is_some_and(|first| version < *first))
    }

    /// The stored targets that the old files sign and none that is kept does.
    fn unsigned_targets(&self, old: &[(&RoleName, u64)]) -> Result<Vec<PathBuf>, RepositoryError> {
        let targets = self.layout.targets();
        let mut entries = fs::read_dir(&targets).map_err(FileError::at("read", &targets))?;
        if entries.next().is_none() {
            return Ok(Vec::new());
        }
        let delegations = self.kept_delegations()?;
        let mut stored: BTreeMap<(TargetPath, String), PathBuf> = BTreeMap::new();
        // By the roles that may sign them, then or now.
        let mut by_role: BTreeMap<RoleName, BTreeSet<(TargetPath, String)>> = BTreeMap::new();
        for (role, version) in old.iter().filter(|(role, _)| **role != RoleName::snapshot()) {
            for (path, sha256) in self.signed(role, *version)? {
                let Ok(below) = stored_path(&path, &sha256) else { continue };
                let place = targets.join(&below);
                if place.symlink_metadata().is_err() {
                    continue;
                }
                target_folder(self.layout, below.parent().unwrap_or_else(|| std::path::Path::new("")))?;
                let homes = delegations.iter().filter_map(|delegations| delegations.role_of(&path));
                for home in homes.chain([RoleName::targets(), (*role).clone()]) {
                    by_role.entry(home).or_default().insert((path.clone(), sha256.clone()));
                }
                stored.insert((path, sha256), place);
            }
        }
        for (role, wanted) in by_role {
            for version in self.kept(&role)? {
                for signed in self.signed(&role, version)? {
                    if wanted.contains(&signed) {
                        stored.remove(&signed);
                    }
                }
            }
        }
        Ok(stored.into_values().collect())
    }

    /// The versions of a role that are kept.
    fn kept(&self, role: &RoleName) -> Result<Vec<u64>, RepositoryError> {
        let mut kept = Vec::new();
        for version in self.files.get(role).into_iter().flatten() {
            if !self.is_old(role, *version)? {
                kept.push(*version);
            }
        }
        Ok(kept)
    }

    /// Every way in which targets that are kept delegate.
    fn kept_delegations(&self) -> Result<Vec<Delegations>, RepositoryError> {
        #[derive(Deserialize)]
        struct Delegating {
            delegations: Option<Delegations>,
        }
        let mut all: Vec<Delegations> = Vec::new();
        for version in self.kept(&RoleName::targets())? {
            let Delegating { delegations } = read(self.layout, &RoleName::targets(), version)?;
            all.extend(delegations.filter(|delegations| !all.contains(delegations)));
        }
        Ok(all)
    }

    /// Path and SHA-256 of what a file signs.
    fn signed(&self, role: &RoleName, version: u64) -> Result<Vec<(TargetPath, String)>, RepositoryError> {
        #[derive(Deserialize)]
        struct Files {
            targets: BTreeMap<TargetPath, Hashed>,
        }
        #[derive(Deserialize)]
        struct Hashed {
            hashes: BTreeMap<String, String>,
        }
        let Files { targets } = read(self.layout, role, version)?;
        let sha256 = |mut file: Hashed| file.hashes.remove("sha256");
        let is_digest = |hex: &String| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let signed = targets.into_iter().filter_map(|(path, file)| Some((path, sha256(file)?)));
        Ok(signed.filter(|(_, sha256)| is_digest(sha256)).collect())
    }
}

/// The published metadata files with a version, by role.
fn found(layout: &Layout) -> Result<BTreeMap<RoleName, Versions>, RepositoryError> {
    let folder = layout.metadata();
    let mut files = BTreeMap::<RoleName, Versions>::new();
    for entry in fs::read_dir(&folder).map_err(FileError::at("read", &folder))? {
        let name = entry.map_err(FileError::at("read", &folder))?.file_name();
        let Some((version, file)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let (Ok(number), Some(role)) = (version.parse::<u64>(), RoleName::of_file_name(file)) else { continue };
        if number.to_string() == version {
            files.entry(role).or_default().insert(number);
        }
    }
    Ok(files)
}

/// Whether a snapshot has stood there for so long that none before it is kept. One from the future has not.
fn is_over(layout: &Layout, snapshot: u64, keep: Span, now: Moment) -> Result<bool, RepositoryError> {
    let path = layout.metadata().join(file_name(&RoleName::snapshot(), snapshot));
    let since = path.symlink_metadata().and_then(|facts| facts.modified()).map_err(FileError::at("read", &path))?;
    let since = Moment::try_from(since).unwrap_or(Moment::MAX);
    Ok(std::time::Duration::try_from(now.duration_since(since)).is_ok_and(|stood| stood >= keep.duration()))
}

/// What is signed in a file that was published once. Not verified: who may sign it may have changed since.
fn read<T: DeserializeOwned>(layout: &Layout, role: &RoleName, version: u64) -> Result<T, RepositoryError> {
    #[derive(Deserialize)]
    struct Envelope<T> {
        signed: T,
    }
    let path = layout.metadata().join(file_name(role, version));
    let bytes = files::read_bounded(&path, METADATA_MAX)?;
    let envelope: Result<Envelope<T>, _> = serde_json::from_slice(&bytes);
    envelope.map(|envelope| envelope.signed).map_err(|error| RepositoryError::damaged(path, error))
}

fn file_name(role: &RoleName, version: u64) -> String {
    format!("{version}.{}", role.file_name())
}
