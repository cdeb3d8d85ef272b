//! What a mount may serve: which repositories must say yes, and what they say.
//!
//! A mount trusts one repository, or several under a map (TAP 4); the rest of tufgate only asks this module. What a map
//! is stands in [`map`], what follows from what its repositories say in `decision.rs`.

mod authorisation;
mod consensus;
mod decision;
mod error;
mod evidence;
mod keys;
pub mod map;
mod standing;
mod state;
#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, sync::Arc};

pub use authorisation::Authorisation;
pub use error::TrustError;
pub use evidence::{Evidence, Said};
pub use keys::{SharedKey, shared_by_roots};
pub use standing::Standing;
pub use state::State;

use consensus::Consensus;
use map::Map;

use crate::{
    tuf::{TargetPath, TrustedSet},
    updater::Repository,
};

/// Whom a `[[mount]]` trusts: its key `repository` or `map`.
#[derive(Clone, Debug)]
pub enum Settings {
    /// The `[[repository]]` of that name.
    Repository(String),
    /// Several, as a map says.
    Map {
        /// The map's file.
        path: PathBuf,
        /// What it says.
        map: Map,
    },
}

impl Settings {
    /// The names of the repositories.
    pub fn repositories(&self) -> Vec<&str> {
        match self {
            Self::Repository(name) => vec![name],
            Self::Map { map, .. } => map.repositories().keys().map(String::as_str).collect(),
        }
    }

    /// The map, where there is one.
    pub fn map(&self) -> Option<&Map> {
        match self {
            Self::Repository(_) => None,
            Self::Map { map, .. } => Some(map),
        }
    }
}

/// What a repository of a map said of a target, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The same as others, and they suffice.
    Agreed,
    /// It lists other bytes than others do.
    Differed,
    /// It lists the target, and too few others do.
    Listed,
    /// It authentically does not list it.
    NotListed,
    /// Its metadata was refused.
    Refused,
    /// Its metadata could not be had.
    Unavailable,
}

impl Heard {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Agreed, Self::Differed, Self::Listed, Self::NotListed, Self::Refused, Self::Unavailable];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agreed => "agreed",
            Self::Differed => "differed",
            Self::Listed => "listed",
            Self::NotListed => "not_listed",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Is told what the repositories of maps say, for metrics.
pub trait Observer: Send + Sync + 'static {
    /// A repository of a mount's map was asked for a target.
    fn heard(&self, mount: &str, repository: &str, heard: Heard);
}

/// Whether a mount has the trust it needs, and what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether its files can be judged.
    pub ready: bool,
    /// What is not current, or not as it should be; not all of it need be in the way.
    pub remarks: Vec<String>,
}

/// The authority of one mount. Cheap to clone.
#[derive(Clone)]
pub struct Trust(Authority);

#[derive(Clone)]
enum Authority {
    One(Arc<Repository>),
    Several(Arc<Consensus>),
}

impl Trust {
    /// Trust in one repository.
    pub fn new(repository: Arc<Repository>) -> Self {
        Self(Authority::One(repository))
    }

    /// Trust as a mount's map says, in repositories of `known`. The error is a name that is none of theirs.
    pub fn of_map(
        mount: &str,
        map: Map,
        known: &[Arc<Repository>],
        observer: Arc<dyn Observer>,
    ) -> Result<Self, String> {
        Ok(Self(Authority::Several(Arc::new(Consensus::new(mount, map, known, observer)?))))
    }

    /// The repositories behind it; those of a map in the order of their names.
    pub fn repositories(&self) -> &[Arc<Repository>] {
        match &self.0 {
            Authority::One(repository) => std::slice::from_ref(repository),
            Authority::Several(consensus) => consensus.repositories(),
        }
    }

    /// The map, where there is one.
    pub fn map(&self) -> Option<&Map> {
        match &self.0 {
            Authority::One(_) => None,
            Authority::Several(consensus) => Some(consensus.map()),
        }
    }

    /// The trusted sets, after a refresh where one is not current or none was tried yet.
    ///
    /// # Errors
    /// Where nothing could be authorised: the one repository is not current, or no entry of the map has enough that are.
    pub async fn fresh(&self) -> Result<State, TrustError> {
        match &self.0 {
            Authority::One(repository) => Ok(State::One(repository.fresh().await?)),
            Authority::Several(consensus) => consensus.fresh().await,
        }
    }

    /// The trusted set that is live and current, where the mount trusts one repository; asks nobody.
    pub fn live(&self) -> Option<State> {
        match &self.0 {
            Authority::One(repository) => repository.current().ok().map(State::One),
            Authority::Several(_) => None,
        }
    }

    /// What the look-ups of these paths rest on, if all of them were made in `state`; whatever they said, it goes on to
    /// hold while that does. `None` where one was not, and where a map divides the paths: each of its repositories is
    /// heard, and counted, each time.
    pub fn standing(&self, state: &State, paths: &[TargetPath]) -> Option<Standing> {
        match (&self.0, state) {
            (Authority::One(repository), State::One(set)) => {
                Some(Standing::new(repository, set, repository.stand_until(set, paths)?))
            }
            _ => None,
        }
    }

    /// What is signed under this path; `None` is an authentic "nothing", or too little.
    pub async fn look_up(&self, path: &TargetPath) -> Result<Option<Authorisation>, TrustError> {
        match &self.0 {
            Authority::One(repository) => {
                Ok(repository.lookup(path).await?.map(|info| Authorisation::by_one(repository, info)))
            }
            Authority::Several(consensus) => match consensus.judge(path).await {
                Ok(authorisation) => Ok(Some(authorisation)),
                Err(error) if error.is_unsigned() => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// What is signed under exactly one of the paths that a file name can mean (decision 7).
    pub async fn authorise(&self, filename: &str, paths: &[TargetPath]) -> Result<Authorisation, TrustError> {
        let mut found: Option<Authorisation> = None;
        let mut unsigned = None;
        for path in paths {
            match self.judge(path).await {
                Ok(authorisation) => {
                    if let Some(first) = found {
                        return Err(self.ambiguous(filename, first.info.path, authorisation.info.path));
                    }
                    found = Some(authorisation);
                }
                Err(error) if error.is_unsigned() => unsigned = unsigned.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        found.ok_or_else(|| unsigned.unwrap_or_else(|| self.unsigned(filename)))
    }

    /// What each repository of a map says of a target, at every entry that is asked; empty where there is no map.
    pub async fn testimony(&self, path: &TargetPath) -> Vec<Evidence> {
        match &self.0 {
            Authority::One(_) => Vec::new(),
            Authority::Several(consensus) => consensus.testimony(path).await,
        }
    }

    /// The refusal of a file name that stands for more than one thing that is signed (decision 7).
    pub fn ambiguous(&self, filename: &str, one: TargetPath, other: TargetPath) -> TrustError {
        TrustError::Ambiguous { filename: filename.to_owned(), authority: self.to_string(), both: (one, other) }
    }

    /// The repositories that are asked for a target, or for anything, with their sets where they are current.
    pub fn asked_for(&self, path: Option<&TargetPath>) -> Vec<(&str, Option<Arc<TrustedSet>>)> {
        let repositories = match &self.0 {
            Authority::One(repository) => vec![repository],
            Authority::Several(consensus) => consensus.asked_for(path),
        };
        repositories.into_iter().map(|repository| (repository.name(), repository.current().ok())).collect()
    }

    /// The targets that top-level metadata lists, of enough repositories. TUF cannot enumerate what is delegated.
    pub fn listed(&self, state: &State) -> Vec<TargetPath> {
        match (&self.0, state) {
            (_, State::One(set)) => set.targets().paths().collect(),
            (Authority::Several(consensus), State::Several(sets)) => consensus.listed(sets),
            (Authority::One(_), State::Several(_)) => Vec::new(),
        }
    }

    /// Whether there is the trust that the mount needs.
    pub fn readiness(&self) -> Readiness {
        match &self.0 {
            Authority::One(repository) => {
                let remark = |error| format!("repository \"{}\": {error}", repository.name());
                let remarks: Vec<String> = repository.current().err().map(remark).into_iter().collect();
                Readiness { ready: remarks.is_empty(), remarks }
            }
            Authority::Several(consensus) => consensus.readiness(),
        }
    }

    /// Keys that repositories under one threshold share, as far as their sets are current.
    pub fn shared_keys(&self) -> Vec<SharedKey> {
        match &self.0 {
            Authority::One(_) => Vec::new(),
            Authority::Several(consensus) => consensus.shared_keys(),
        }
    }

    /// Why a file that nobody signed is not offered, for a page as a whole.
    pub fn unsigned_words(&self) -> String {
        match &self.0 {
            Authority::One(repository) => format!("not signed in repository \"{}\"", repository.name()),
            Authority::Several(_) => format!("not signed by enough of the {self}"),
        }
    }

    async fn judge(&self, path: &TargetPath) -> Result<Authorisation, TrustError> {
        match &self.0 {
            Authority::One(_) => self.look_up(path).await?.ok_or_else(|| self.unsigned(path.as_str())),
            Authority::Several(consensus) => consensus.judge(path).await,
        }
    }

    /// The refusal of what authentic metadata does not list.
    fn unsigned(&self, target: &str) -> TrustError {
        let target = target.to_owned();
        match &self.0 {
            Authority::One(repository) => TrustError::Unsigned { target, repository: repository.name().to_owned() },
            Authority::Several(_) => TrustError::NoEntry { target },
        }
    }
}

/// `repository "a"`, or `repositories "a", "b" and "c"`.
impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.repositories().iter().map(|repository| repository.name()).collect();
        let word = if names.len() == 1 { "repository" } else { "repositories" };
        write!(f, "{word} {}", evidence::quoted(&names))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({self})")
    }
}
