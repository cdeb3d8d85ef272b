//! What a change of delegations means, in words.

use super::{Failure, print_line, terminal::one_line};
use crate::repository::{DelegationChange, Redelegation, Trusted, Turn};

/// Prints it whole: whoever signs it trusts all of it.
pub(super) fn print(delegated: &Redelegation) -> Result<(), Failure> {
    lines(delegated).iter().try_for_each(|line| print_line(line))
}

fn lines(delegated: &Redelegation) -> Vec<String> {
    let Redelegation { roles, order, bins, other } = delegated;
    let mut lines: Vec<String> = roles.iter().flat_map(of_role).collect();
    if let Some(Turn { before, after }) = order.as_ref().filter(|order| order.before.len().max(order.after.len()) > 1) {
        let shown = |names: &[String]| if names.is_empty() { "none".to_owned() } else { one_line(&names.join(", ")) };
        lines.push(format!("roles are asked in this order: {} -> {}", shown(before), shown(after)));
    }
    if let Some(Turn { before, after }) = bins {
        let shown = |number: &u64| if *number == 0 { "none".to_owned() } else { number.to_string() };
        lines.push(format!("hashed bins: {} -> {}", shown(before), shown(after)));
    }
    if *other {
        let what = "the content of a key under the id it had, or members that are not known, change too";
        lines.push(format!("delegations: {what}; compare staged/ with published/metadata/ before you sign"));
    }
    lines
}

/// What happens to the role, then every pattern there was or is: `+` new, `-` gone, `=` as before.
fn of_role(change: &DelegationChange) -> Vec<String> {
    let words = |terminating: bool| match terminating {
        true => "terminating (no later role is asked for its paths)",
        false => "not terminating",
    };
    let what = match (&change.before, &change.after) {
        (None, Some(after)) => format!("new, {}", words(after.terminating)),
        (Some(before), Some(after)) if before.terminating != after.terminating => {
            format!("{} -> {}", words(before.terminating), words(after.terminating))
        }
        (_, Some(after)) => format!("other paths, {} as before", words(after.terminating)),
        (_, None) => "gone".to_owned(),
    };
    let (before, after) = (patterns(change.before.as_ref()), patterns(change.after.as_ref()));
    let mut lines = vec![format!("role {}: {what}", one_line(&change.role))];
    let kept = after.iter().map(|pattern| (if before.contains(pattern) { '=' } else { '+' }, pattern));
    let gone = before.iter().filter(|&pattern| !after.contains(pattern)).map(|pattern| ('-', pattern));
    lines.extend(kept.chain(gone).map(|(mark, pattern)| format!("  {mark} {pattern}")));
    lines
}

fn patterns(trusted: Option<&Trusted>) -> std::collections::BTreeSet<String> {
    let Some(trusted) = trusted else { return Default::default() };
    let prefixes = trusted.path_hash_prefixes.iter();
    let prefixes = prefixes.map(|prefix| format!("paths whose SHA-256 begins with {}", one_line(prefix)));
    trusted.paths.iter().map(|path| one_line(path)).chain(prefixes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(paths: &[&str], prefixes: &[&str], terminating: bool) -> Trusted {
        let [paths, path_hash_prefixes] = [paths, prefixes].map(|list| list.iter().map(ToString::to_string).collect());
        Trusted { paths, path_hash_prefixes, terminating }
    }

    #[test]
    fn whoever_signs_a_delegation_reads_its_paths_its_order_and_whether_it_ends_the_search() {
        let change = |role: &str, before, after| DelegationChange { role: role.to_owned(), before, after };
        let delegated = Redelegation {
            roles: vec![
                change("team", Some(trusted(&["a/*", "b/*"], &[], false)), Some(trusted(&["b/*", "*/*"], &[], true))),
                change("evil", None, Some(trusted(&["x\n  = y\u{200b}"], &[], false))),
                change("hashed", Some(trusted(&[], &["0a"], true)), Some(trusted(&[], &["0a", "0"], true))),
                change("old", Some(trusted(&["old/*"], &[], false)), None),
            ],
            order: Some(Turn { before: vec!["a".into(), "b".into()], after: vec!["b".into(), "a".into()] }),
            bins: Some(Turn { before: 0, after: 16 }),
            other: true,
        };
        let ends = "terminating (no later role is asked for its paths)";
        let expected = [
            format!("role team: not terminating -> {ends}"),
            "  + */*".to_owned(),
            "  = b/*".to_owned(),
            "  - a/*".to_owned(),
            "role evil: new, not terminating".to_owned(),
            "  + x\\u000a  = y\\u200b".to_owned(),
            format!("role hashed: other paths, {ends} as before"),
            "  + paths whose SHA-256 begins with 0".to_owned(),
            "  = paths whose SHA-256 begins with 0a".to_owned(),
            "role old: gone".to_owned(),
            "  - old/*".to_owned(),
            "roles are asked in this order: a, b -> b, a".to_owned(),
            "hashed bins: none -> 16".to_owned(),
        ];
        let lines = lines(&delegated);
        assert_eq!(lines[..expected.len()], expected);
        assert!(lines[expected.len()].contains("content of a key"), "{lines:?}");
        assert!(super::lines(&Redelegation::default()).is_empty());
    }
}
