//! What is published, read back and verified from the repository's own anchor before anything is built on it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use jiff::Timestamp as Moment;

use super::{Layout, RepositoryError, layout::METADATA_MAX};
use crate::{
    base::files,
    tuf::{
        Floors, RoleName, RootStage, TIMESTAMP_FILE_NAME, TargetsStage, TrustedSet, TufError, Verified,
        schema::{Root, SignedTargets, Snapshot, Targets, Timestamp},
    },
};

/// Metadata files that are about to be published, by name: looked up before the folder.
pub(super) type Overlay = BTreeMap<String, Vec<u8>>;

/// The four roles as published, and the way to those that targets delegates to, which are read when they are asked for.
/// Verified, though perhaps expired: renewing what has expired is this side's work.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) root: Root,
    pub(super) timestamp: Timestamp,
    pub(super) snapshot: Snapshot,
    pub(super) targets: Targets,
    set: TrustedSet,
}

/// The roles that the online key signs, and the root that says so.
#[derive(Clone, Debug)]
pub(super) struct Online {
    pub(super) root: Root,
    pub(super) timestamp: Timestamp,
    pub(super) snapshot: Snapshot,
}

/// A reader of metadata files: those about to be published first, then the published ones.
pub(super) struct Reader<'a> {
    layout: &'a Layout,
    overlay: &'a Overlay,
    /// The names that were looked up in the overlay and found.
    found: RefCell<BTreeSet<String>>,
}

/// Earlier than any expiry: with it, verification judges signatures, versions and digests alone.
const BEFORE_ALL: Moment = Moment::MIN;

impl Published {
    /// Reads and verifies what is published.
    pub(super) fn read(layout: &Layout) -> Result<Self, RepositoryError> {
        let overlay = Overlay::new();
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
        let overlay = Overlay::new();
        let reader = Reader::new(layout, &overlay);
        reader.delegated(&self.set, role, BEFORE_ALL).map_err(|trouble| trouble.of_published(layout))
    }

    /// The same as a whole, to be changed.
    pub(super) fn whole_role(&self, layout: &Layout, role: &RoleName) -> Result<Option<Targets>, RepositoryError> {
        let Some(signed) = self.role(layout, role)? else { return Ok(None) };
        let whole = whole(role.clone(), signed.to_whole());
        whole.map(Some).map_err(|error| Trouble::from(error).of_published(layout))
    }

    /// The roles that targets delegates to.
    pub(super) fn delegated(&self) -> impl Iterator<Item = RoleName> {
        self.targets.delegations.iter().flat_map(|delegations| delegations.role_names())
    }

    /// Verifies what would be published if the files of `overlay` were written, as a client that starts from the
    /// anchor would at `now`.
    pub(super) fn rehearse(layout: &Layout, overlay: &Overlay, now: Moment) -> Result<(), RepositoryError> {
        let reader = Reader::new(layout, overlay);
        let published = reader.all(now).map_err(Trouble::of_rehearsal)?;
        reader.delegated_roles(&published, now, drop).map_err(Trouble::of_rehearsal)
    }

    /// As [`Published::rehearse`], whatever has expired; also refuses files of `overlay` that were not verified because
    /// no client would ask for them. Gives the targets roles that are among them.
    pub(super) fn verify_all_of(
        layout: &Layout,
        overlay: &Overlay,
    ) -> Result<(Self, Vec<Verified<SignedTargets>>), RepositoryError> {
        let reader = Reader::new(layout, overlay);
        let published = reader.all(BEFORE_ALL).map_err(Trouble::of_rehearsal)?;
        let mut roles = vec![published.set.targets().clone()];
        reader.delegated_roles(&published, BEFORE_ALL, |role| roles.push(role)).map_err(Trouble::of_rehearsal)?;
        reader.all_found().map(|()| (published, roles))
    }
}

impl Online {
    /// Reads and verifies root, timestamp and snapshot; targets, which may be large, is left alone.
    pub(super) fn read(layout: &Layout) -> Result<Self, RepositoryError> {
        let overlay = Overlay::new();
        let reader = Reader::new(layout, &overlay);
        reader.online(BEFORE_ALL).map(|(online, _)| online).map_err(|trouble| trouble.of_published(layout))
    }

    /// As [`Published::rehearse`], as far as snapshot.
    pub(super) fn rehearse(layout: &Layout, overlay: &Overlay, now: Moment) -> Result<(), RepositoryError> {
        let reader = Reader::new(layout, overlay);
        reader.online(now).map(drop).map_err(Trouble::of_rehearsal)
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
        Self { layout, overlay, found: RefCell::default() }
    }

    fn all_found(&self) -> Result<(), RepositoryError> {
        match self.overlay.keys().find(|name| !self.found.borrow().contains(*name)) {
            None => Ok(()),
            Some(name) => Err(RepositoryError::WouldNotVerify { why: format!("no role refers to {name}") }),
        }
    }

    fn file(&self, name: &str) -> Result<Option<Vec<u8>>, RepositoryError> {
        if let Some(bytes) = self.overlay.get(name) {
            self.found.borrow_mut().insert(name.to_owned());
            return Ok(Some(bytes.clone()));
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

    /// Follows the chain of roots from the anchor to its end, then timestamp and snapshot.
    fn online(&self, now: Moment) -> Result<(Online, TargetsStage), Trouble> {
        if self.layout.is_unfounded() {
            return Err(RepositoryError::Unfounded { dir: self.layout.dir().to_owned() }.into());
        }
        let anchor = files::read_bounded(&self.layout.anchor(), METADATA_MAX).map_err(RepositoryError::from)?;
        let mut roots = RootStage::start(anchor)?;
        while let Some(bytes) = self.file(&roots.request().file_name)? {
            roots.accept_root(bytes)?;
        }
        let stage = roots.finish(now)?.accept(self.needed(TIMESTAMP_FILE_NAME)?, &Floors::new(), now)?;
        let snapshot = self.needed(&stage.request().file_name)?;
        let stage = stage.accept(snapshot, now)?;
        let online = Online {
            root: (**stage.root()).clone(),
            timestamp: (**stage.timestamp()).clone(),
            snapshot: whole(RoleName::snapshot(), stage.snapshot().to_whole())?,
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

    /// Verifies the delegated roles of the overlay at `now`; where it has new delegations, all others too, whatever has
    /// expired of them: somebody else may be the one to renew them.
    fn delegated_roles(
        &self,
        published: &Published,
        now: Moment,
        mut found: impl FnMut(Verified<SignedTargets>),
    ) -> Result<(), Trouble> {
        let targets_file = RoleName::targets().versioned_file_name(published.targets.version);
        let all = self.overlay.contains_key(&targets_file).then(|| published.delegated());
        let of_overlay = self.overlay.keys().filter_map(|name| RoleName::of_file_name(name.split_once('.')?.1));
        let of_overlay: BTreeSet<RoleName> = of_overlay.filter(|role| !role.is_top_level()).collect();
        for role in &of_overlay {
            if let Some(role) = self.delegated(&published.set, role, now)? {
                found(role);
            }
        }
        for role in all.into_iter().flatten().filter(|role| !of_overlay.contains(role)) {
            self.delegated(&published.set, &role, BEFORE_ALL)?;
        }
        Ok(())
    }
}
