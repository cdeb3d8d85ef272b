//! What is published, read back and verified from the repository's own anchor before anything is built on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Mutex,
};

use jiff::Timestamp as Moment;
use serde::Deserialize;

use super::{Layout, RepositoryError, layout::METADATA_MAX, progress::Progress};
use crate::{
    base::{Digest, files, lock, parallel},
    tuf::{
        Floors, RoleName, RootStage, SnapshotStage, TIMESTAMP_FILE_NAME, TargetPath, TargetsStage, TrustedSet,
        TufError, Verified,
        schema::{Root, SignedSnapshot, SignedTargets, Targets, Timestamp, parse_expires},
    },
};

/// Metadata files that are about to be published: looked up before those that are.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Where they lie; in the first of these folders that has the file.
    folders: Vec<PathBuf>,
    /// Name and SHA-256, in hexadecimal, of each.
    files: BTreeMap<String, String>,
}

impl Overlay {
    pub(super) fn new(folders: Vec<PathBuf>, files: BTreeMap<String, String>) -> Self {
        Self { folders, files }
    }

    /// The bytes of the file of that name, where it is one of these.
    fn file(&self, name: &str) -> Result<Option<Vec<u8>>, RepositoryError> {
        let Some(sha256) = self.files.get(name) else { return Ok(None) };
        for folder in &self.folders {
            match files::read_bounded(&folder.join(name), METADATA_MAX) {
                Ok(bytes) if Digest::sha256(&bytes).to_hex() == *sha256 => return Ok(Some(bytes)),
                Ok(_) => {
                    return Err(RepositoryError::WouldNotVerify { why: format!("{name} is not what was recorded") });
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RepositoryError::WouldNotVerify { why: format!("{name} is missing") })
    }
}

/// The four roles as published, and the way to those that targets delegates to, which are read when they are asked for.
/// Verified, though perhaps expired: renewing what has expired is this side's work.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) root: Root,
    pub(super) timestamp: Timestamp,
    pub(super) snapshot: Verified<SignedSnapshot>,
    pub(super) targets: Targets,
    set: TrustedSet,
}

/// The roles that the online key signs, and the root that says so.
#[derive(Clone, Debug)]
pub(super) struct Online {
    pub(super) root: Root,
    pub(super) timestamp: Timestamp,
    pub(super) snapshot: Verified<SignedSnapshot>,
}

/// The least that a renewal of timestamp alone needs.
#[derive(Clone, Debug)]
pub(super) struct Glance {
    pub(super) root: Root,
    pub(super) timestamp: Timestamp,
    pub(super) snapshot_expires: Moment,
}

/// A reader of metadata files: those about to be published first, then the published ones.
pub(super) struct Reader<'a> {
    layout: &'a Layout,
    overlay: &'a Overlay,
    /// The names that were looked up in the overlay and found.
    found: Mutex<BTreeSet<String>>,
}

/// Earlier than any expiry: with it, verification judges signatures, versions and digests alone.
const BEFORE_ALL: Moment = Moment::MIN;

impl Published {
    /// Reads and verifies what is published.
    pub(super) fn read(layout: &Layout) -> Result<Self, RepositoryError> {
        let overlay = Overlay::default();
        let reader = Reader::new(layout, &overlay);
        reader.all(BEFORE_ALL).map_err(|trouble| trouble.of_published(layout))
    }

    /// A targets role as published, `targets` itself or one that it delegates to; `None` where it was never published.
    pub(super) fn role(
        &self,
        layout: &Layout,
        role: &RoleName,
    ) -> Result<Option<Verified<SignedTargets>>, RepositoryError> {
        if *role == RoleName::targets() {
            return Ok(Some(self.set.targets().clone()));
        }
        if !self.snapshot.meta.contains_key(&role.meta_key()) {
            return Ok(None);
        }
        let overlay = Overlay::default();
        let reader = Reader::new(layout, &overlay);
        reader.delegated(&self.set, role, BEFORE_ALL).map_err(|trouble| trouble.of_published(layout))
    }

    /// The same as a whole, to be changed.
    pub(super) fn whole_role(&self, layout: &Layout, role: &RoleName) -> Result<Option<Targets>, RepositoryError> {
        let Some(signed) = self.role(layout, role)? else { return Ok(None) };
        let whole = whole(role.clone(), signed.to_whole());
        whole.map(Some).map_err(|error| Trouble::from(error).of_published(layout))
    }

    /// The role that signs this path.
    pub(super) fn role_of(&self, path: &TargetPath) -> RoleName {
        let delegated = self.targets.delegations.as_ref().and_then(|delegations| delegations.role_of(path));
        delegated.unwrap_or_else(RoleName::targets)
    }

    /// The roles that targets delegates to.
    pub(super) fn delegated(&self) -> impl Iterator<Item = RoleName> {
        self.targets.delegations.iter().flat_map(|delegations| delegations.role_names())
    }

    /// Verifies what would be published if the files of `overlay` were written, as a client that starts from the
    /// anchor would at `now`. `before` is what is published now; `None`: nothing.
    pub(super) fn rehearse(
        layout: &Layout,
        overlay: &Overlay,
        before: Option<&Self>,
        now: Moment,
        progress: &dyn Progress,
    ) -> Result<(), RepositoryError> {
        let reader = Reader::new(layout, overlay);
        let published = reader.all(now).map_err(Trouble::of_rehearsal)?;
        let same = before.is_some_and(|before| before.targets.delegations == published.targets.delegations);
        reader.delegated_roles(&published, now, !same, |_| progress.advance()).map_err(Trouble::of_rehearsal)
    }

    /// As [`Published::rehearse`], whatever has expired; also refuses files of `overlay` that were not verified because
    /// no client would ask for them. `found` is given the targets roles that are among them.
    pub(super) fn verify_all_of(
        layout: &Layout,
        overlay: &Overlay,
        mut found: impl FnMut(&Self, &Verified<SignedTargets>),
    ) -> Result<Self, RepositoryError> {
        let reader = Reader::new(layout, overlay);
        let published = reader.all(BEFORE_ALL).map_err(Trouble::of_rehearsal)?;
        found(&published, published.set.targets());
        reader
            .delegated_roles(&published, BEFORE_ALL, true, |role| found(&published, &role))
            .map_err(Trouble::of_rehearsal)?;
        reader.all_found().map(|()| published)
    }
}

impl Online {
    /// Reads and verifies root, timestamp and snapshot; targets, which may be large, is left alone.
    pub(super) fn read(layout: &Layout) -> Result<Self, RepositoryError> {
        let overlay = Overlay::default();
        let reader = Reader::new(layout, &overlay);
        reader.online(BEFORE_ALL).map(|(online, _)| online).map_err(|trouble| trouble.of_published(layout))
    }

    /// As [`Published::rehearse`], as far as snapshot; gives what would be published.
    pub(super) fn rehearse(layout: &Layout, overlay: &Overlay, now: Moment) -> Result<Self, RepositoryError> {
        let reader = Reader::new(layout, overlay);
        reader.online(now).map(|(online, _)| online).map_err(Trouble::of_rehearsal)
    }

    /// Reads root and timestamp, verified, and of snapshot only that its bytes are those that timestamp lists, which were
    /// verified when that was signed. `None` where timestamp lists no digest.
    pub(super) fn glance(layout: &Layout) -> Result<Option<Glance>, RepositoryError> {
        let overlay = Overlay::default();
        let reader = Reader::new(layout, &overlay);
        reader.glance().map_err(|trouble| trouble.of_published(layout))
    }

    /// Verifies root and timestamp as a client would at `now`, and that timestamp lists the snapshot that `before` does.
    pub(super) fn rehearse_timestamp(
        layout: &Layout,
        overlay: &Overlay,
        before: &Timestamp,
        now: Moment,
    ) -> Result<Timestamp, RepositoryError> {
        let reader = Reader::new(layout, overlay);
        let stage = reader.timestamp(now).map_err(Trouble::of_rehearsal)?;
        if stage.timestamp().meta != before.meta {
            return Err(RepositoryError::WouldNotVerify { why: "timestamp lists another snapshot".to_owned() });
        }
        Ok((**stage.timestamp()).clone())
    }

    /// As [`Published::verify_all_of`], as far as snapshot.
    pub(super) fn verify_all_of(layout: &Layout, overlay: &Overlay) -> Result<Self, RepositoryError> {
        let reader = Reader::new(layout, overlay);
        let (online, _) = reader.online(BEFORE_ALL).map_err(Trouble::of_rehearsal)?;
        reader.all_found().map(|()| online)
    }
}

/// A document whose entries are all read.
fn whole<T>(role: RoleName, document: Result<T, String>) -> Result<T, TufError> {
    document.map_err(|detail| TufError::Schema { role, detail })
}

enum Trouble {
    Read(RepositoryError),
    /// A file that the others refer to.
    Missing(String),
    Verify(TufError),
}

impl Trouble {
    fn of_rehearsal(self) -> RepositoryError {
        match self {
            Self::Read(error) => error,
            Self::Missing(name) => RepositoryError::WouldNotVerify { why: format!("{name} is missing") },
            Self::Verify(error) => RepositoryError::WouldNotVerify { why: error.to_string() },
        }
    }

    fn of_published(self, layout: &Layout) -> RepositoryError {
        match self {
            Self::Read(error) => error,
            Self::Missing(name) => RepositoryError::damaged(layout.metadata().join(name), "the file is missing"),
            Self::Verify(error) => RepositoryError::Unverified { dir: layout.published(), why: error.to_string() },
        }
    }
}

impl From<TufError> for Trouble {
    fn from(error: TufError) -> Self {
        Self::Verify(error)
    }
}

impl From<RepositoryError> for Trouble {
    fn from(error: RepositoryError) -> Self {
        Self::Read(error)
    }
}

impl<'a> Reader<'a> {
    fn new(layout: &'a Layout, overlay: &'a Overlay) -> Self {
        Self { layout, overlay, found: Mutex::default() }
    }

    fn all_found(&self) -> Result<(), RepositoryError> {
        let found = lock(&self.found);
        match self.overlay.files.keys().find(|name| !found.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(RepositoryError::WouldNotVerify { why: format!("no role refers to {name}") }),
        }
    }

    fn file(&self, name: &str) -> Result<Option<Vec<u8>>, RepositoryError> {
        if let Some(bytes) = self.overlay.file(name)? {
            lock(&self.found).insert(name.to_owned());
            return Ok(Some(bytes));
        }
        match files::read_bounded(&self.layout.metadata().join(name), METADATA_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn needed(&self, name: &str) -> Result<Vec<u8>, Trouble> {
        self.file(name)?.ok_or_else(|| Trouble::Missing(name.to_owned()))
    }

    /// Follows the chain of roots from the anchor to its end, then timestamp.
    fn timestamp(&self, now: Moment) -> Result<SnapshotStage, Trouble> {
        if self.layout.is_unfounded() {
            return Err(RepositoryError::Unfounded { dir: self.layout.dir().to_owned() }.into());
        }
        let anchor = files::read_bounded(&self.layout.anchor(), METADATA_MAX).map_err(RepositoryError::from)?;
        let mut roots = RootStage::start(anchor)?;
        while let Some(bytes) = self.file(&roots.request().file_name)? {
            roots.accept_root(bytes)?;
        }
        Ok(roots.finish(now)?.accept(self.needed(TIMESTAMP_FILE_NAME)?, &Floors::new(), now)?)
    }

    fn glance(&self) -> Result<Option<Glance>, Trouble> {
        #[derive(Deserialize)]
        struct Envelope {
            signed: Expiry,
        }
        #[derive(Deserialize)]
        struct Expiry {
            expires: String,
        }
        let stage = self.timestamp(BEFORE_ALL)?;
        let request = stage.request();
        if request.digests.is_none() {
            return Ok(None);
        }
        let snapshot = self.needed(&request.file_name)?;
        request.check_bytes(&snapshot)?;
        let damaged = |why: &dyn ToString| {
            RepositoryError::damaged(self.layout.metadata().join(&request.file_name), why.to_string())
        };
        let Envelope { signed } = serde_json::from_slice(&snapshot).map_err(|error| damaged(&error))?;
        let snapshot_expires = parse_expires(&signed.expires).ok_or_else(|| damaged(&"it has no expiry"))?;
        let (root, timestamp) = ((**stage.root()).clone(), (**stage.timestamp()).clone());
        Ok(Some(Glance { root, timestamp, snapshot_expires }))
    }

    /// The same, then snapshot.
    fn online(&self, now: Moment) -> Result<(Online, TargetsStage), Trouble> {
        let stage = self.timestamp(now)?;
        let snapshot = self.needed(&stage.request().file_name)?;
        let stage = stage.accept(snapshot, now)?;
        let online = Online {
            root: (**stage.root()).clone(),
            timestamp: (**stage.timestamp()).clone(),
            snapshot: stage.snapshot().clone(),
        };
        Ok((online, stage))
    }

    fn all(&self, now: Moment) -> Result<Published, Trouble> {
        let (Online { root, timestamp, snapshot }, stage) = self.online(now)?;
        let targets = self.needed(&stage.request().file_name)?;
        let set = stage.accept(targets, now)?;
        let targets = whole(RoleName::targets(), set.targets().to_whole())?;
        Ok(Published { root, timestamp, snapshot, targets, set })
    }

    /// A role that the top-level targets delegate to.
    fn delegated(
        &self,
        set: &TrustedSet,
        role: &RoleName,
        now: Moment,
    ) -> Result<Option<Verified<SignedTargets>>, Trouble> {
        let Some(request) = set.delegated(role)? else { return Ok(None) };
        let bytes = self.needed(&request.file.file_name)?;
        Ok(Some(request.accept(bytes, now)?.targets().clone()))
    }

    /// Verifies the delegated roles of the overlay at `now`; with `others`, where it has new delegations, all others too,
    /// whatever has expired of them: somebody else may be the one to renew them.
    fn delegated_roles(
        &self,
        published: &Published,
        now: Moment,
        others: bool,
        mut found: impl FnMut(Verified<SignedTargets>),
    ) -> Result<(), Trouble> {
        let names = self.overlay.files.keys();
        let of_overlay = names.filter_map(|name| RoleName::of_file_name(name.split_once('.')?.1));
        let of_overlay: BTreeSet<RoleName> = of_overlay.filter(|role| !role.is_top_level()).collect();
        let verify = |role: &RoleName, now| self.delegated(&published.set, role, now);
        parallel::in_order(&of_overlay, |role| verify(role, now), |role| role.into_iter().for_each(&mut found))?;
        let targets_file = RoleName::targets().versioned_file_name(published.targets.version);
        if !others || !self.overlay.files.contains_key(&targets_file) {
            return Ok(());
        }
        let others = published.delegated().filter(|role| !of_overlay.contains(role));
        parallel::in_order(others, |role| verify(&role, BEFORE_ALL).map(drop), drop)
    }
}
