//! The promises that the README prints: each names tests, and there are tests of these names.

use std::fs;

use crate::harness::source::{Tree, is_test, quoted, root};

const PROMISES: usize = 9;

/// The numbered entries below "## Promises".
fn promises(readme: &str) -> Vec<String> {
    let section = readme.split("\n## ").find(|section| section.starts_with("Promises\n")).unwrap_or_default();
    let mut entries: Vec<String> = Vec::new();
    for line in section.lines() {
        match line.split_once(". ") {
            Some((number, _)) if number.parse() == Ok(entries.len() + 1) => entries.push(line.to_owned()),
            _ if line.starts_with("   ") => entries.iter_mut().last().unwrap().push_str(line),
            _ => {}
        }
    }
    entries
}

#[test]
fn every_promise_of_the_readme_has_tests() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (tree, promises) = (Tree::read(), promises(&readme));
    assert_eq!(promises.len(), PROMISES);
    for promise in promises {
        let tests: Vec<String> = quoted(&promise).into_iter().filter(|word| is_test(word)).collect();
        assert!(!tests.is_empty(), "no test: {promise}");
        for test in tests {
            assert!(tree.tests.contains(&test), "there is no test {test}");
        }
    }
}

#[test]
fn promises_are_read_as_they_stand() {
    let readme =
        "# x\n\n## Promises\nWords.\n\n1. **One**: `a_test_of_the_first`,\n   `more`.\n2. Two.\n\n## Next\n3. no\n";
    let entries = promises(readme);
    assert_eq!(entries.len(), 2);
    assert_eq!(quoted(&entries[0]), ["a_test_of_the_first", "more"]);
}
