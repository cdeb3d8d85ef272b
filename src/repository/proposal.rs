//! What is to be signed now: the staged roles, and those that are due or that a staged change makes sign anew, each with
//! the version and the expiry that it will have.

use jiff::Timestamp as Moment;

use super::{
    Layout, Lifetimes, RepositoryError,
    keys::KeyFolder,
    publish::{ahead_of, expires_at, is_due, next},
    published::Published,
    signing::{Asked, Awaited, check_reachable},
    staged::Staged,
};
use crate::{
    base::Span,
    tuf::{
        KeyId, RoleName,
        schema::{Delegations, Document, RoleKeys, Root, Signature, Targets, Version},
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
    pub(super) fn propose(&self, mut staged: Staged) -> Result<Staged, RepositoryError> {
        let Self { before, lifetimes, now, .. } = self;
        let asked = before.root.roles.get("root");
        if staged.root.is_none() && is_due(before.root.expires, lifetimes.root, *now) && self.can_sign(asked) {
            staged.root = Some(Document::unsigned(before.root.clone()));
        }
        if let Some(Document { signatures, signed }) = &mut staged.root {
            let version = next(before.root.version)?;
            self.fix((signatures, &mut signed.version, &mut signed.expires), version, lifetimes.root)?;
            check_possible(signed)?;
        }
        self.propose_targets(&mut staged);
        self.propose_delegated(&mut staged)?;
        for (role, Document { signatures, signed }) in &mut staged.roles {
            let version = match before.snapshot.meta.get(&role.meta_key()) {
                Some(published) => next(published.version)?,
                None => Version::FIRST,
            };
            self.fix((signatures, &mut signed.version, &mut signed.expires), version, lifetimes.targets)?;
        }
        Ok(staged)
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

    /// Sets version and expiry, unless the role was signed with these.
    fn fix(
        &self,
        (signatures, version, expires): (&mut Vec<Signature>, &mut Version, &mut Moment),
        next: Version,
        lifetime: Span,
    ) -> Result<(), RepositoryError> {
        if signatures.is_empty() || *version != next || *expires <= self.now {
            signatures.clear();
            *version = next;
            *expires = expires_at(self.now, lifetime)?;
        }
        Ok(())
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
