//! What the repositories of an entry said of a target, for words.

use std::{fmt, sync::Arc};

use super::keys::SharedKey;
use crate::{
    base::{Digest, Fault},
    tuf::{Shown, TargetPath},
    updater::UpdaterError,
};

/// How many digits of a digest stand in a sentence; explanations have the whole.
const DIGITS: usize = 12;

/// What was heard at one entry of a map.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The target that was asked for; where nothing was, the state of the repositories is meant.
    pub target: Option<TargetPath>,
    /// The entry's place in `mapping`, from 0.
    pub entry: usize,
    /// How many must agree.
    pub threshold: usize,
    /// What each repository said, in the entry's order.
    pub said: Vec<(String, Said)>,
    /// Keys through which two of the repositories that list it could be made to speak at once.
    pub shared: Vec<SharedKey>,
}

/// What one repository said.
#[derive(Clone, Debug)]
pub enum Said {
    /// It lists the target.
    Lists {
        /// Length in bytes.
        length: u64,
        /// The preferred one of its digests.
        digest: Digest,
        /// Whether it is one of those that agree and suffice.
        agreed: bool,
    },
    /// It authentically does not list it.
    ListsNot,
    /// It could not be heard.
    Broken(Arc<UpdaterError>),
    /// It is current; nothing was asked of it.
    Current,
    /// The answer was not waited for: it could have changed nothing.
    NotHeard,
}

impl Evidence {
    /// The first trouble that stands in the way; a refusal before any other, so that it is never taken for an outage.
    pub fn trouble(&self) -> Option<&Arc<UpdaterError>> {
        let troubles =
            || self.said.iter().filter_map(|(_, said)| if let Said::Broken(error) = said { Some(error) } else { None });
        troubles().find(|error| error.fault() == Fault::Refused).or_else(|| troubles().next())
    }

    /// The repositories that agree.
    pub fn agreed(&self) -> impl Iterator<Item = &str> {
        self.said
            .iter()
            .filter(|(_, said)| matches!(said, Said::Lists { agreed: true, .. }))
            .map(|(name, _)| name.as_str())
    }

    /// What the repositories say that are not among those that agree, if any of them says something else.
    pub fn dissent(&self) -> Option<String> {
        let differs =
            |said: &Said| matches!(said, Said::Lists { agreed: false, .. } | Said::ListsNot | Said::Broken(_));
        let said: Vec<_> = self.said.iter().filter(|(_, said)| differs(said)).collect();
        (!said.is_empty()).then(|| clauses(&said))
    }

    /// "2 of 3 repositories".
    fn quorum(&self) -> String {
        format!("{} of {} repositories", self.threshold, self.said.len())
    }

    /// Why the entry does not authorise the target though all could be heard.
    pub(super) fn too_few(&self) -> String {
        if let [(only, _)] = self.said.as_slice() {
            return format!("not signed in repository \"{only}\"");
        }
        if self.said.iter().all(|(_, said)| matches!(said, Said::ListsNot)) {
            let names: Vec<&str> = self.said.iter().map(|(name, _)| name.as_str()).collect();
            return format!("not signed by {} of the repositories {}", self.threshold, quoted(&names));
        }
        format!("not signed by {}: {self}", self.quorum())
    }

    pub(super) fn disagreement(&self) -> String {
        format!("repositories disagree, {} would have to list the same: {self}", self.quorum())
    }

    pub(super) fn untold(&self) -> String {
        match self.said.as_slice() {
            // The trouble names the repository itself.
            [(_, Said::Broken(error))] => error.to_string(),
            _ => format!("{} must agree, which cannot be told: {self}", self.quorum()),
        }
    }

    pub(super) fn keys_shared(&self) -> String {
        let keys: Vec<String> = self.shared.iter().map(ToString::to_string).collect();
        format!("{} must agree, and who shares a key counts once: {}", self.quorum(), keys.join("; "))
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clauses(&self.said.iter().collect::<Vec<_>>()))
    }
}

/// `"a" and "b" list 22 bytes sha256:0123…; "c" does not list it; timestamp of repository "d" expired …`: those that say
/// the same in one clause.
fn clauses(said: &[&(String, Said)]) -> String {
    let mut groups: Vec<(Vec<&str>, &Said)> = Vec::new();
    for (name, said) in said {
        match groups.iter_mut().find(|(_, known)| is_same(known, said)) {
            Some((names, _)) => names.push(name),
            None => groups.push((vec![name], said)),
        }
    }
    groups.iter().map(|(names, said)| clause(names, said)).collect::<Vec<_>>().join("; ")
}

fn is_same(one: &Said, other: &Said) -> bool {
    match (one, other) {
        (Said::Lists { length, digest, .. }, Said::Lists { length: other, digest: theirs, .. }) => {
            length == other && digest == theirs
        }
        (Said::Broken(_), _) | (_, Said::Broken(_)) => false,
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

fn clause(names: &[&str], said: &Said) -> String {
    let (who, many) = (quoted(names), names.len() > 1);
    match said {
        Said::Lists { length, digest, .. } => {
            let hex: String = digest.to_hex().chars().take(DIGITS).collect();
            let verb = if many { "list" } else { "lists" };
            format!("{who} {verb} {length} bytes {}:{hex}", digest.algorithm())
        }
        Said::ListsNot if many => format!("{who} do not list it"),
        Said::ListsNot => format!("{who} does not list it"),
        // One long story must not push what the others said out of the line that pip prints.
        Said::Broken(error) => Shown::detail(&error.to_string()).to_string(),
        Said::Current if many => format!("{who} are current"),
        Said::Current => format!("{who} is current"),
        Said::NotHeard => format!("{who} not waited for"),
    }
}

/// `"a"`, `"a" and "b"`, `"a", "b" and "c"`.
pub(super) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(content: &[u8], agreed: bool) -> Said {
        Said::Lists { length: content.len() as u64, digest: Digest::sha256(content), agreed }
    }

    fn evidence(said: Vec<(&str, Said)>) -> Evidence {
        let said = said.into_iter().map(|(name, said)| (name.to_owned(), said)).collect();
        Evidence { target: None, entry: 0, threshold: 2, said, shared: Vec::new() }
    }

    #[test]
    fn who_says_the_same_stands_in_one_clause() {
        let evidence = evidence(vec![
            ("a", lists(b"abc", true)),
            ("b", lists(b"other", false)),
            ("c", lists(b"abc", true)),
            ("d", Said::ListsNot),
        ]);
        let words = "\"a\" and \"c\" list 3 bytes sha256:ba7816bf8f01; \"b\" lists 5 bytes sha256:d9298a10d1b0; \"d\" does not list it";
        assert_eq!(evidence.to_string(), words);
        assert_eq!(evidence.agreed().collect::<Vec<_>>(), ["a", "c"]);
        assert!(evidence.dissent().unwrap().starts_with("\"b\" lists 5 bytes"));
    }

    #[test]
    fn a_refusal_goes_before_an_outage() {
        let down = Said::Broken(Arc::new(UpdaterError::Interrupted { repository: "a".to_owned() }));
        let expired = Said::Broken(Arc::new(UpdaterError::NotLoaded { repository: "b".to_owned(), why: None }));
        let evidence = evidence(vec![("a", down), ("b", expired)]);
        assert_eq!(evidence.trouble().unwrap().fault(), Fault::Refused);
    }
}
