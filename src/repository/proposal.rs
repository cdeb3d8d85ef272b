//! What is to be signed now: the staged roles, and those that are due or that a staged change makes sign anew, each with
//! the version and the expiry that it will have.

use std::collections::BTreeMap;

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
        KeyId, RoleName,
        schema::{Delegations, Document, Role, RoleKeys, Root, Targets, Version},
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
    pub(super) fn propose(&self, mut staged: Staged) -> Result<(Staged, Vec<DroppedSignatures>), RepositoryError> {
        let mut dropped = Vec::new();
        let Self { before, lifetimes, now, .. } = self;
        let asked = before.root.roles.get("root");
        if staged.root.is_none() && is_due(before.root.expires, lifetimes.root, *now) && self.can_sign(asked) {
            staged.root = Some(Document::unsigned(before.root.clone()));
        }
        if let Some(root) = &mut staged.root {
            check_possible(&root.signed)?;
            let asked = self.asked_for_root(&root.signed)?;
            dropped.extend(fix(root, &asked, next(before.root.version)?, lifetimes.root, *now)?);
        }
        self.propose_targets(&mut staged);
        self.propose_delegated(&mut staged)?;
        let mut asked = BTreeMap::new();
        for role in staged.roles.keys() {
            asked.insert(role.clone(), self.asked(&staged, role)?);
        }
        for (role, document) in &mut staged.roles {
            let version = match before.snapshot.meta.get(&role.meta_key()) {
                Some(published) => next(published.version)?,
                None => Version::FIRST,
            };
            let asked = asked.remove(role);
            dropped.extend(fix(document, asked.as_slice(), version, lifetimes.targets, *now)?);
        }
        Ok((staged, dropped))
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

    /// Targets that are due, or whose keys a staged root changes.
    fn propose_targets(&self, staged: &mut Staged) {
        let Self { before, lifetimes, now, .. } = self;
        let asked = before.root.roles.get("targets");
        let rekeyed = staged.root.as_ref().is_some_and(|root| root.signed.roles.get("targets") != asked);
        let due = is_due(before.targets.expires, lifetimes.targets, *now) && self.can_sign(asked);
        if rekeyed || due {
            staged.roles.entry(RoleName::targets()).or_insert_with(|| Document::unsigned(before.targets.clone()));
        }
    }

    /// Delegated roles that were never published, whose keys change, or that are due. Bins share their keys and are many:
    /// they are looked at when targets is signed, which is at half of its life at the latest, and those past a quarter
    /// of theirs are renewed then.
    fn propose_delegated(&self, staged: &mut Staged) -> Result<(), RepositoryError> {
        let targets_signed = staged.roles.contains_key("targets");
        let Some(delegations) = self.delegations(staged).cloned() else { return Ok(()) };
        if delegations.succinct_roles.is_some() && !targets_signed {
            return Ok(());
        }
        let before = self.before.targets.delegations.as_ref();
        for role in delegations.role_names().filter(|role| !staged.roles.contains_key(role)).collect::<Vec<_>>() {
            let asked = delegations.keys_of(&role);
            let rekeyed = before.and_then(|before| before.keys_of(&role)) != asked;
            let proposed = match self.before.role(self.layout, &role)? {
                None => Some(Targets::new(self.now)),
                Some(role) if rekeyed || self.is_delegated_due(role.expires(), asked.as_ref(), targets_signed) => {
                    let whole = role.to_whole();
                    Some(whole.map_err(|why| RepositoryError::damaged(self.layout.metadata(), why))?)
                }
                Some(_) => None,
            };
            if let Some(targets) = proposed {
                staged.roles.insert(role, Document::unsigned(targets));
            }
        }
        Ok(())
    }

    fn is_delegated_due(&self, expires: Moment, asked: Option<&RoleKeys>, targets_signed: bool) -> bool {
        let lifetime = self.lifetimes.targets.duration();
        let ahead = if targets_signed { lifetime / 4 * 3 } else { lifetime / 2 };
        self.now >= ahead_of(expires, ahead) && self.can_sign(asked)
    }

    fn can_sign(&self, asked: Option<&RoleKeys>) -> bool {
        let Some(asked) = asked else { return false };
        let at_hand = |keyid: &&KeyId| self.at_hand.iter().any(|known| known == keyid.as_str());
        asked.keyids.iter().filter(at_hand).count() as u64 >= u64::from(asked.threshold.get())
    }
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

/// Refuses a root with a role that its keys could never sign.
fn check_possible(root: &Root) -> Result<(), RepositoryError> {
    for (role, asked) in &root.roles {
        let known: std::collections::BTreeSet<&KeyId> =
            asked.keyids.iter().filter(|keyid| root.keys.contains_key(*keyid)).collect();
        check_reachable(role.as_str(), known.len(), asked.threshold)?;
    }
    Ok(())
}
