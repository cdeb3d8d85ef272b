//! Keys through which two repositories could be made to speak at once.
//!
//! A threshold of repositories is worth what their keys are apart. What counts are the keys that can put a file on a
//! repository's list: those of root (they can name any others), of targets, and of the delegated roles that lead to a
//! target; whether they signed or only may. Keys of timestamp and snapshot decide how fresh a list is, not what stands
//! on it. Keys are compared by their material, whatever keyid they go by.

use std::{fmt, sync::Arc};

use crate::tuf::{
    KeyId, Keyring, PublicKey, TargetInfo, TrustedSet,
    schema::{Document, Root},
};

/// How many characters of a keyid stand in a sentence.
const DIGITS: usize = 12;

/// A key that two repositories have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedKey {
    /// The repositories' names.
    pub repositories: [String; 2],
    /// The keyid that the first of them gives it.
    pub keyid: KeyId,
}

impl fmt::Display for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = &self.repositories;
        let keyid: String = self.keyid.as_str().chars().take(DIGITS).collect();
        write!(f, "repositories \"{one}\" and \"{other}\" share key {keyid}")
    }
}

/// The keys that can put something on a repository's list, by the roles that give them this power.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys(Vec<Arc<Keyring>>);

impl Keys {
    /// Those of root and the top-level targets.
    pub(super) fn of_set(set: &TrustedSet) -> Self {
        Self(vec![Arc::clone(set.root().keys()), Arc::clone(set.targets().keys())])
    }

    /// Those of root and of the roles that led to the target, the top-level one among them.
    pub(super) fn of_target(set: &TrustedSet, info: &TargetInfo) -> Self {
        let chain = info.chain.iter().map(|link| &link.keys);
        Self(std::iter::once(set.root().keys()).chain(chain).map(Arc::clone).collect())
    }

    /// A key that both have, by the keyid that the first gives it.
    pub(super) fn common(&self, other: &Self) -> Option<&KeyId> {
        self.0
            .iter()
            .flat_map(|keyring| keyring.iter())
            .find_map(|(material, id)| other.0.iter().any(|keyring| keyring.contains_key(material)).then_some(id))
    }
}

/// What the root files of two repositories have in common. A file that is no root shares nothing: opening its repository
/// says what is wrong with it.
pub fn shared_by_roots(one: (&str, &[u8]), other: (&str, &[u8])) -> Option<SharedKey> {
    let keyid = keys_of_root(one.1)?.common(&keys_of_root(other.1)?).cloned()?;
    Some(SharedKey { repositories: [one.0.to_owned(), other.0.to_owned()], keyid })
}

fn keys_of_root(json: &[u8]) -> Option<Keys> {
    let root = serde_json::from_slice::<Document<Root>>(json).ok()?.signed;
    let roles = ["root", "targets"].iter().filter_map(|role| root.roles.get(*role));
    let material = |keyid: &KeyId| {
        let key = PublicKey::from_schema(root.keys.get(keyid)?).ok()?;
        Some((key.material().clone(), keyid.clone()))
    };
    let keyring: Keyring = roles.flat_map(|role| &role.keyids).filter_map(material).collect();
    Some(Keys(vec![Arc::new(keyring)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::repository::{TestKey, TestRepository};

    fn root(change: impl FnOnce(&mut TestRepository)) -> Vec<u8> {
        let mut repository = TestRepository::new("2027-01-01T00:00:00Z".parse().unwrap());
        for (role, seed) in [("root", 11), ("targets", 12), ("snapshot", 13), ("timestamp", 14)] {
            repository.set_keys(role, vec![TestKey::ed25519(seed)], 1);
        }
        change(&mut repository);
        repository.publish_root();
        repository.files["1.root.json"].to_vec()
    }

    #[test]
    fn keys_of_root_and_targets_are_compared_across_roles_and_by_their_material() {
        let ours = root(|_| ());
        let apart = |repository: &mut TestRepository| {
            for (role, seed) in [("root", 21), ("targets", 22), ("snapshot", 23), ("timestamp", 24)] {
                repository.set_keys(role, vec![TestKey::ed25519(seed)], 1);
            }
        };
        let shared = |theirs: Vec<u8>| shared_by_roots(("ours", &ours), ("theirs", &theirs));
        assert_eq!(shared(root(apart)), None);
        for (role, seed) in [("targets", 12), ("root", 12), ("targets", 11)] {
            let theirs = root(|repository| {
                apart(repository);
                repository.set_keys(role, vec![TestKey::ed25519(seed).alias("another-name"), TestKey::ed25519(99)], 1);
            });
            let found = shared(theirs).unwrap();
            assert_eq!(found.keyid, TestKey::ed25519(seed).id, "{role}");
            assert!(found.to_string().starts_with("repositories \"ours\" and \"theirs\" share key "), "{found}");
        }
        let online = root(|repository| {
            apart(repository);
            repository.set_keys("timestamp", vec![TestKey::ed25519(11)], 1);
            repository.set_keys("snapshot", vec![TestKey::ed25519(13)], 1);
        });
        assert_eq!(shared(online), None, "what only dates a list puts nothing on it");
        assert_eq!(shared(b"{}".to_vec()), None);
        assert!(shared(ours.clone()).is_some(), "one repository under two names");
    }
}
