//! Keys of a role that lie on different machines: each signs what is staged where it is.
//!
//! The first `sign` fixes versions and expiries, so that all sign the same bytes; the signatures travel with the folder.
//! Whoever edits a role that is staged takes the signatures off it.

use std::{num::NonZeroU32, path::Path};

use super::{
    Awaited, Change, Editor, Layout, PublicPart, RepositoryError, delegation, diff::change_digest, founding,
    keys::Signer, log::Deed, proposal::Proposing, publish, signing,
};
use crate::{
    base::Clock,
    tuf::{KeyId, RoleName, schema::Delegations},
};

/// What [`sign()`] did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SignReport {
    /// The difference that was signed.
    pub change: Change,
    /// The digest of all that was signed, as [`super::diff()`] gives it.
    pub digest: String,
    /// Signatures that were added.
    pub added: usize,
    /// All signatures there are and are awaited.
    pub roles: Vec<Awaited>,
}

/// Adds the signatures of these keys to what is staged; to take effect it is to be published. Refused is a key that may
/// sign nothing of it.
///
/// With `change`, a digest that [`super::diff()`] gave, nothing but that change is signed.
pub fn sign(
    dir: &Path,
    signers: &[Box<dyn Signer>],
    change: Option<&str>,
    clock: &dyn Clock,
) -> Result<SignReport, RepositoryError> {
    if let Some(first) = founding::sign(&Layout::open(dir)?, signers, change, clock)? {
        return Ok(first);
    }
    let mut editor = Editor::open(dir)?;
    let shown = editor.change()?;
    let (layout, before) = (editor.layout().clone(), editor.published().clone());
    let lifetimes = editor.settings().expires_after;
    let proposing = Proposing::new(&layout, &before, lifetimes, clock.now())?;
    publish::check_clock(before.timestamp.expires, before.snapshot.expires, lifetimes, clock.now())?;
    let (mut proposal, dropped) = proposing.propose(editor.staged_whole()?)?;
    if proposal.root.is_none() && proposal.roles.is_empty() {
        return Err(RepositoryError::NothingToSign);
    }
    let digest = change_digest(&proposal, &lifetimes)?;
    check_change(change, &digest)?;
    signing::check_wanted(&proposing.awaited(&proposal)?, signers)?;
    let mut added = 0;
    if let Some(mut root) = proposal.root.take() {
        let asked = proposing.asked_for_root(&root.signed)?;
        added += signing::add(&mut root, &asked, signers)?;
        proposal.root = Some(root);
    }
    for role in proposal.roles.keys().cloned().collect::<Vec<_>>() {
        let asked = proposing.asked(&proposal, &role)?;
        if let Some(document) = proposal.roles.get_mut(&role) {
            added += signing::add(document, &[asked], signers)?;
        }
    }
    let roles = proposing.awaited(&proposal)?;
    // What is fixed here and not signed yet would be fixed anew, later: whoever signs first, all sign the same.
    editor.set_staged(proposal)?;
    editor.note(signing::deed(signers, &digest, &roles));
    editor.save()?;
    Ok(SignReport { change: Change { dropped, ..shown }, digest, added, roles })
}

/// Refuses to sign another change than the one that somebody saw.
pub(super) fn check_change(seen: Option<&str>, found: &str) -> Result<(), RepositoryError> {
    match seen {
        Some(seen) if !seen.eq_ignore_ascii_case(found) => {
            Err(RepositoryError::OtherChange { seen: seen.to_owned(), found: found.to_owned() })
        }
        _ => Ok(()),
    }
}

/// How the keys of a role are to change.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    /// Keys that may sign from now on.
    pub add: Vec<PublicPart>,
    /// Ids, or their beginnings, of keys that may no longer.
    pub remove: Vec<String>,
    /// How many have to; `None`: as many as before.
    pub threshold: Option<NonZeroU32>,
}

/// Stages a change of the keys of `root`, `targets`, `online` (snapshot and timestamp together), `snapshot`,
/// `timestamp`, a delegated role, or `bins`. Roles whose keys change are signed anew.
pub fn rotate(dir: &Path, role: &str, rotation: &Rotation) -> Result<Change, RepositoryError> {
    let mut editor = Editor::open(dir)?;
    match role {
        "root" | "targets" | "snapshot" | "timestamp" => rotate_top_level(&mut editor, &[role], rotation)?,
        "online" => rotate_top_level(&mut editor, &["snapshot", "timestamp"], rotation)?,
        _ => rotate_delegated(&mut editor, role, rotation)?,
    }
    let (role, removed) = (role.to_owned(), rotation.remove.clone());
    let added = rotation.add.iter().map(|key| key.keyid.clone()).collect();
    editor.note(Deed::Rotated { role, added, removed, threshold: rotation.threshold.map(NonZeroU32::get) });
    editor.save()
}

fn rotate_top_level(editor: &mut Editor, roles: &[&str], rotation: &Rotation) -> Result<(), RepositoryError> {
    let mut root = editor.root().clone();
    for role in roles {
        let keys = root.roles.get_mut(*role);
        let keys = keys.ok_or_else(|| RepositoryError::UnknownRole { role: (*role).to_owned() })?;
        rotation.apply(role, &mut keys.keyids, &mut keys.threshold)?;
    }
    for key in &rotation.add {
        root.keys.insert(key.key_id()?, key.to_schema());
    }
    editor.edit_root(|staged| *staged = root);
    Ok(())
}

fn rotate_delegated(editor: &mut Editor, role: &str, rotation: &Rotation) -> Result<(), RepositoryError> {
    let unknown = || RepositoryError::UnknownRole { role: role.to_owned() };
    let mut delegations = editor.targets().delegations.clone().ok_or_else(unknown)?;
    let Delegations { keys, roles, succinct_roles, .. } = &mut delegations;
    let named = roles.iter_mut().flatten().find(|named| named.name.as_str() == role);
    let named = named.map(|named| (&mut named.keyids, &mut named.threshold));
    let bins = succinct_roles.as_mut().filter(|bins| bins.name_prefix == role);
    let bins = bins.map(|bins| (&mut bins.keyids, &mut bins.threshold));
    let (keyids, threshold) = named.or(bins).ok_or_else(unknown)?;
    rotation.apply(role, keyids, threshold)?;
    for key in &rotation.add {
        keys.insert(key.key_id()?, key.to_schema());
    }
    delegation::forget_unused(&mut delegations);
    editor.role_mut(&RoleName::targets())?.delegations = Some(delegations);
    Ok(())
}

impl Rotation {
    fn apply(&self, role: &str, keyids: &mut Vec<KeyId>, threshold: &mut NonZeroU32) -> Result<(), RepositoryError> {
        for beginning in &self.remove {
            let found = keyids.iter().filter(|keyid| keyid.as_str().starts_with(beginning.as_str())).count();
            if found != 1 || beginning.is_empty() {
                return Err(RepositoryError::NoSuchKey { keyid: beginning.clone(), found, role: role.to_owned() });
            }
            keyids.retain(|keyid| !keyid.as_str().starts_with(beginning.as_str()));
        }
        for key in &self.add {
            let keyid = key.key_id()?;
            if !keyids.contains(&keyid) {
                keyids.push(keyid);
            }
        }
        keyids.sort();
        *threshold = self.threshold.unwrap_or(*threshold);
        signing::check_reachable(role, keyids.len(), *threshold)
    }
}
