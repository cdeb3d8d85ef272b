//! A target that may be served, and who signs it.

use std::sync::Arc;

use url::Url;

use super::{Evidence, decision::Voice, evidence::quoted, keys::Keys};
use crate::{
    base::{Algorithm, Digests},
    tuf::{ChainLink, Chunks, TargetInfo, TargetPath},
    updater::Repository,
};

/// A target that may be served, and who signs it.
#[derive(Clone, Debug)]
pub struct Authorisation {
    /// What is signed of it. Where several repositories agree it has all digests that any of them lists, so that the
    /// bytes are held against each of them; of custom data only the digests of pieces, and those only where all agree on
    /// them. A field of `custom` that the gate begins to use has to become part of `Voice::agrees`.
    pub info: TargetInfo,
    by: By,
}

#[derive(Clone, Debug)]
enum By {
    One(Arc<Repository>),
    Several(Arc<Agreement>),
}

#[derive(Debug)]
struct Agreement {
    signatories: Vec<Signatory>,
    evidence: Evidence,
}

/// A repository and what it lists.
#[derive(Clone, Debug)]
pub(super) struct Signatory {
    pub(super) repository: Arc<Repository>,
    pub(super) info: TargetInfo,
    /// The keys that could have put it there.
    pub(super) keys: Keys,
}

impl Voice for Signatory {
    /// The same length, at least one strong algorithm in common, equal digests in all that are, and no other digests of
    /// the same pieces. Who signs no pieces, or cuts them otherwise, does not contradict.
    fn agrees(&self, other: &Self) -> bool {
        is_same(&self.info, &other.info) && !self.info.chunks.contradict(&other.info.chunks)
    }

    fn is_independent(&self, other: &Self) -> bool {
        self.keys.common(&other.keys).is_none()
    }
}

impl Authorisation {
    pub(super) fn by_one(repository: &Arc<Repository>, info: TargetInfo) -> Self {
        Self { info, by: By::One(Arc::clone(repository)) }
    }

    /// What these agree on; `None` where there is nobody.
    pub(super) fn by_several(signatories: Vec<Signatory>, evidence: Evidence) -> Option<Self> {
        let first = &signatories.first()?.info;
        let digests = signatories.iter().flat_map(|signatory| signatory.info.digests.iter().cloned());
        let info = TargetInfo {
            path: first.path.clone(),
            length: first.length,
            digests: Digests::new(digests)?,
            custom: None,
            chunks: agreed_chunks(&signatories),
            chain: Vec::new(),
        };
        Some(Self { info, by: By::Several(Arc::new(Agreement { signatories, evidence })) })
    }

    /// The same signatures, for what the target itself lists: a file of a signed listing.
    #[must_use]
    pub fn of_listed(&self, path: TargetPath, length: u64, digests: Digests) -> Self {
        let info = TargetInfo {
            path,
            length,
            digests,
            custom: None,
            chunks: Chunks::Unsigned,
            chain: self.info.chain.clone(),
        };
        Self { info, by: self.by.clone() }
    }

    /// The roles that led to it, each with the name of its repository.
    pub fn chain(&self) -> Vec<(&str, &ChainLink)> {
        match &self.by {
            By::One(repository) => self.info.chain.iter().map(|link| (repository.name(), link)).collect(),
            By::Several(agreement) => {
                let of = |signatory: &'_ Signatory| signatory.info.chain.len();
                let mut chain = Vec::with_capacity(agreement.signatories.iter().map(of).sum());
                for Signatory { repository, info, .. } in &agreement.signatories {
                    chain.extend(info.chain.iter().map(|link| (repository.name(), link)));
                }
                chain
            }
        }
    }

    /// Where the repositories that sign it keep the target (§5.7.3), if they keep targets.
    pub fn own_urls(&self) -> Vec<Url> {
        let url = |repository: &Repository, info: &TargetInfo| {
            let set = repository.current().ok()?;
            repository.target_url(&set, info).ok()
        };
        match &self.by {
            By::One(repository) => url(repository, &self.info).into_iter().collect(),
            By::Several(agreement) => agreement
                .signatories
                .iter()
                .filter_map(|signatory| url(&signatory.repository, &signatory.info))
                .collect(),
        }
    }

    /// Whether both are about the same bytes.
    pub fn is_same(&self, other: &Self) -> bool {
        is_same(&self.info, &other.info)
    }

    /// "signed", and by whom where several agree, and who says otherwise.
    pub fn detail(&self) -> String {
        let By::Several(agreement) = &self.by else { return "signed".to_owned() };
        let names: Vec<&str> = agreement.evidence.agreed().collect();
        let dissent = agreement.evidence.dissent().map(|dissent| format!("; {dissent}")).unwrap_or_default();
        format!("signed by {}{dissent}", quoted(&names))
    }

    /// What the repositories say that are not among those that agree.
    pub fn dissent(&self) -> Option<String> {
        match &self.by {
            By::One(_) => None,
            By::Several(agreement) => agreement.evidence.dissent(),
        }
    }
}

/// The digests of pieces that all of them sign: what only some sign is not used (decision of TAP 4: agreement needs equal
/// custom data as far as it is used).
fn agreed_chunks(signatories: &[Signatory]) -> Chunks {
    let mut all = signatories.iter().map(|signatory| &signatory.info.chunks);
    match all.next() {
        Some(first) if first.signed().is_some() && all.all(|other| other == first) => first.clone(),
        _ => Chunks::Unsigned,
    }
}

fn is_same(one: &TargetInfo, other: &TargetInfo) -> bool {
    let mut common = false;
    for algorithm in Algorithm::ALL {
        if let (Some(ours), Some(theirs)) = (one.digests.get(algorithm), other.digests.get(algorithm)) {
            if ours != theirs {
                return false;
            }
            common = true;
        }
    }
    common && one.length == other.length
}
