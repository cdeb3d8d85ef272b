//! What is to be signed now: the staged roles, and those that are due or that a staged change makes sign anew, each with
//! the version and the expiry that it will have.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp as Moment;
use serde::Serialize;

use super::{
    DroppedSignatures, Layout, Lifetimes, RepositoryError,
    keys::KeyFolder,
    publish::{ahead_of, expires_at, is_due, next},
    published::Published,
    signing::{self, Asked, Awaited, check_reachable},
    staged::Staged,
};
use crate::{
    base::Span,
    tuf::{
        KeyId, RoleName, Verified,
        schema::{Delegations, Document, Role, RoleKeys, Root, SignedTargets, Targets, Version},
    },
};

/// What a proposal is made from.
#[derive(Debug)]
pub(super) struct Proposing<'a> {
    pub(super) layout: &'a Layout,
    pub(super) before: &'a Published,
    pub(super) lifetimes: Lifetimes,
    pub(super) now: Moment,
    /// The key ids whose private keys lie in the repository's folder of keys.
    at_hand: Vec<String>,
}

impl<'a> Proposing<'a> {
    pub(super) fn new(
        layout: &'a Layout,
        before: &'a Published,
        lifetimes: Lifetimes,
        now: Moment,
    ) -> Result<Self, RepositoryError> {
        let at_hand = KeyFolder::new(layout.keys()).list()?.into_iter().map(|(keyid, _)| keyid).collect();
        Ok(Self { layout, before, lifetimes, now, at_hand })
    }

    /// Completes what is staged. A role that was signed for the version that is next keeps version, expiry and
    /// signatures until it expires.
    pub(super) fn propose(&self, staged: Staged) -> Result<(Staged, Vec<DroppedSignatures>), RepositoryError> {
        let mut dropped = Vec::new();
        let mut staged_roles = staged.roles;
        let root = self.root(staged.root)?.map(|root| root.shown(&mut dropped));
        let targets = self.targets(staged_roles.remove("targets"), root.as_ref())?;
        let targets = targets.map(|targets| targets.shown(&mut dropped));
        let delegating = self.delegating(targets.as_ref());
        let mut roles = BTreeMap::new();
        for role in delegating.roles(staged_roles.keys()) {
            let staged = staged_roles.remove(&role);
            let published = if staged.is_none() { self.before.role(self.layout, &role)? } else { None };
            let proposed = self.delegated(&delegating, &role, staged, published.as_ref())?;
            roles.extend(proposed.map(|proposed| (role, proposed.shown(&mut dropped))));
        }
        roles.extend(targets.map(|targets| (RoleName::targets(), targets)));
        Ok((Staged { root, roles }, dropped))
    }

    /// The root that is to be signed, if it is.
    pub(super) fn root(&self, staged: Option<Document<Root>>) -> Result<Option<Proposed<Root>>, RepositoryError> {
        let Self { before, lifetimes, now, .. } = self;
        let due = is_due(before.root.expires, lifetimes.root, *now) && self.can_sign(before.root.roles.get("root"));
        let due = due.then(|| Document::unsigned(before.root.clone()));
        let Some(mut root) = staged.or(due) else { return Ok(None) };
        check_possible(&root.signed)?;
        let asked = self.asked_for_root(&root.signed)?;
        let dropped = fix(&mut root, &asked, next(before.root.version)?, lifetimes.root, *now)?;
        Ok(Some(Proposed { document: root, dropped }))
    }

    /// Targets to be signed: staged ones, those that are due, or whose keys this root changes.
    pub(super) fn targets(
        &self,
        staged: Option<Document<Targets>>,
        root: Option<&Document<Root>>,
    ) -> Result<Option<Proposed<Targets>>, RepositoryError> {
        let Self { before, lifetimes, now, .. } = self;
        let asked = before.root.roles.get("targets");
        let rekeyed = root.is_some_and(|root| root.signed.roles.get("targets") != asked);
        let due = is_due(before.targets.expires, lifetimes.targets, *now) && self.can_sign(asked);
        let published = (rekeyed || due).then(|| Document::unsigned(before.targets.clone()));
        let root = root.map_or(&before.root, |root| &root.signed);
        let fix = |targets| self.fix_targets(&RoleName::targets(), targets, Asked::by_root(&RoleName::targets(), root));
        staged.or(published).map(fix).transpose()
    }

    /// What the targets that are to be signed, if they are, delegate.
    pub(super) fn delegating(&self, targets: Option<&Document<Targets>>) -> Delegating {
        let signed = targets.map_or(&self.before.targets, |targets| &targets.signed);
        Delegating { delegations: signed.delegations.clone(), targets_signed: targets.is_some() }
    }

    /// A delegated role to be signed: a staged one, or one that was never published, whose keys change, or that is due.
    pub(super) fn delegated(
        &self,
        delegating: &Delegating,
        role: &RoleName,
        staged: Option<Document<Targets>>,
        published: Option<&Verified<SignedTargets>>,
    ) -> Result<Option<Proposed<Targets>>, RepositoryError> {
        let proposed = match (staged, published) {
            (Some(staged), _) => Some(staged),
            (None, None) => Some(Document::unsigned(Targets::new(self.now))),
            (None, Some(published)) if self.is_delegated_due(delegating, role, published.expires()) => {
                let whole = published.to_whole();
                let whole = whole.map_err(|why| RepositoryError::damaged(self.layout.metadata(), why))?;
                Some(Document::unsigned(whole))
            }
            (None, Some(_)) => None,
        };
        let asked = || Asked::by_targets(role, delegating.delegations.as_ref());
        proposed.map(|targets| self.fix_targets(role, targets, asked())).transpose()
    }

    /// The keys that have to sign a role of a proposal.
    pub(super) fn asked(&self, proposal: &Staged, role: &RoleName) -> Result<Asked, RepositoryError> {
        match role.is_top_level() {
            true => Asked::by_root(role, proposal.root.as_ref().map_or(&self.before.root, |root| &root.signed)),
            false => Asked::by_targets(role, self.delegations(proposal)),
        }
    }

    /// The keys that have to sign the root of a proposal: a threshold of the root before, and one of its own (§5.3.4).
    pub(super) fn asked_for_root(&self, root: &Root) -> Result<Vec<Asked>, RepositoryError> {
        let role = RoleName::root();
        Ok(vec![Asked::by_root(&role, &self.before.root)?, Asked::by_root(&role, root)?])
    }

    /// Signatures there are and signatures awaited.
    pub(super) fn awaited(&self, proposal: &Staged) -> Result<Vec<Awaited>, RepositoryError> {
        let mut awaited = Vec::new();
        if let Some(root) = &proposal.root {
            for asked in self.asked_for_root(&root.signed)? {
                awaited.push(asked.awaited(root)?);
            }
        }
        for (role, document) in &proposal.roles {
            awaited.push(self.asked(proposal, role)?.awaited(document)?);
        }
        Ok(awaited)
    }

    fn delegations<'b>(&'b self, proposal: &'b Staged) -> Option<&'b Delegations> {
        let staged = proposal.roles.get("targets").map(|targets| &targets.signed);
        staged.unwrap_or(&self.before.targets).delegations.as_ref()
    }

    fn is_delegated_due(&self, delegating: &Delegating, role: &RoleName, expires: Moment) -> bool {
        let keys_in = |delegations: Option<&Delegations>| delegations.and_then(|delegations| delegations.keys_of(role));
        let asked = keys_in(delegating.delegations.as_ref());
        let rekeyed = keys_in(self.before.targets.delegations.as_ref()) != asked;
        let lifetime = self.lifetimes.targets.duration();
        let ahead = if delegating.targets_signed { lifetime / 4 * 3 } else { lifetime / 2 };
        rekeyed || self.now >= ahead_of(expires, ahead) && self.can_sign(asked.as_ref())
    }

    fn can_sign(&self, asked: Option<&RoleKeys>) -> bool {
        let Some(asked) = asked else { return false };
        let at_hand = |keyid: &&KeyId| self.at_hand.iter().any(|known| known == keyid.as_str());
        asked.keyids.iter().filter(at_hand).count() as u64 >= u64::from(asked.threshold.get())
    }

    fn fix_targets(
        &self,
        role: &RoleName,
        mut targets: Document<Targets>,
        asked: Result<Asked, RepositoryError>,
    ) -> Result<Proposed<Targets>, RepositoryError> {
        let published = self.before.snapshot.meta.get(&role.meta_key());
        let published = published.map_err(|why| RepositoryError::damaged(self.layout.metadata(), why))?;
        let version = published.map_or(Ok(Version::FIRST), |published| next(published.version))?;
        let dropped = fix(&mut targets, &[asked?], version, self.lifetimes.targets, self.now)?;
        Ok(Proposed { document: targets, dropped })
    }
}

/// A role to be signed, and the signatures that it had and that count no longer.
#[derive(Clone, Debug)]
pub(super) struct Proposed<T> {
    pub(super) document: Document<T>,
    pub(super) dropped: Option<DroppedSignatures>,
}

/// How much longer than its life a signed role may live: clocks of those who sign differ.
const CLOCKS_APART: Span = Span::days(1);

/// Sets version and expiry, unless somebody whose signature counts has signed the role with these. Drops signatures that
/// count for nothing, and says so.
pub(super) fn fix<T: Dated>(
    document: &mut Document<T>,
    asked: &[Asked],
    next: Version,
    lifetime: Span,
    now: Moment,
) -> Result<Option<DroppedSignatures>, RepositoryError> {
    let Document { signatures, signed } = document;
    let mut dropped = signing::retain_valid(signatures, signed, asked)?;
    let mut why = "they are not of what is staged, or of keys that may not sign it";
    let latest = expires_at(expires_at(now, lifetime)?, CLOCKS_APART)?;
    let (version, expires) = (signed.version(), signed.expires());
    let unfit = match () {
        () if version != next => Some("another publication has taken the version that they were made for"),
        () if expires <= now => Some("what they were made for has expired"),
        () if expires > latest => Some("what they were made for would live longer than a role of this repository does"),
        () => None,
    };
    if let Some(unfit) = unfit.filter(|_| !signatures.is_empty()) {
        why = unfit;
        dropped.extend(signatures.drain(..).map(|signature| signature.keyid));
    }
    if signatures.is_empty() {
        signed.date(next, expires_at(now, lifetime)?);
    }
    let keyids: Vec<String> = dropped.iter().map(ToString::to_string).collect();
    let role = asked.first().map(|asked| asked.role.to_string()).unwrap_or_default();
    Ok((!keyids.is_empty()).then_some(DroppedSignatures { role, keyids, why }))
}

/// A role that can be given a version and an expiry.
pub(super) trait Dated: Role + Serialize {
    /// Gives it these.
    fn date(&mut self, version: Version, expires: Moment);
}

impl Dated for Root {
    fn date(&mut self, version: Version, expires: Moment) {
        (self.version, self.expires) = (version, expires);
    }
}

impl Dated for Targets {
    fn date(&mut self, version: Version, expires: Moment) {
        (self.version, self.expires) = (version, expires);
    }
}

impl<T> Proposed<T> {
    /// The role, once it is noted what it lost.
    fn shown(self, dropped: &mut Vec<DroppedSignatures>) -> Document<T> {
        dropped.extend(self.dropped);
        self.document
    }
}

/// What targets delegates once a proposal is published.
#[derive(Debug)]
pub(super) struct Delegating {
    pub(super) delegations: Option<Delegations>,
    targets_signed: bool,
}

impl Delegating {
    /// The roles to look at beside those that are staged. Bins share their keys and are many: they are looked at when
    /// targets is signed, which is at half of its life at the latest, and those past a quarter of theirs are renewed then.
    pub(super) fn roles<'a>(&self, staged: impl Iterator<Item = &'a RoleName>) -> BTreeSet<RoleName> {
        let skipped = |delegations: &&Delegations| delegations.succinct_roles.is_some() && !self.targets_signed;
        let looked_at = self.delegations.iter().filter(|delegations| !skipped(delegations));
        staged.cloned().chain(looked_at.flat_map(Delegations::role_names)).collect()
    }
}

/// Refuses a root with a role that its keys could never sign.
fn check_possible(root: &Root) -> Result<(), RepositoryError> {
    for (role, asked) in &root.roles {
        let known: BTreeSet<&KeyId> = asked.keyids.iter().filter(|keyid| root.keys.contains_key(*keyid)).collect();
        check_reachable(role.as_str(), known.len(), asked.threshold)?;
    }
    Ok(())
}
