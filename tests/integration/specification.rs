//! The table of docs/SPECIFICATION.md, held against the specification's list of steps and against the source: every row
//! that has to be there is, every test that a row names is a test, every piece of code that it names exists.

use std::{collections::BTreeSet, fs};

use crate::harness::source::{Tree, is_code, is_test, quoted, root};

/// Steps of the client's workflow, §5 of version 1.0.34, as it numbers them.
const WORKFLOW: [(&str, u32); 4] = [("5.3", 12), ("5.4", 5), ("5.5", 7), ("5.6", 7)];
/// The rest of them, and what is numbered more deeply; §5.4.3 is its two parts.
const DEEPER: [&str; 11] =
    ["5.1", "5.2", "5.4.3.1", "5.4.3.2", "5.6.7.1", "5.6.7.2", "5.6.7.2.1", "5.6.7.2.2", "5.7.1", "5.7.2", "5.7.3"];
/// Sections on the system, the repository and its documents that bind a client or a signer.
const SECTIONS: [&str; 24] = [
    "1.5.4", "2.1", "2.1.1", "2.1.2", "2.1.3", "2.1.4", "3.1.1", "3.1.2", "3.1.2.1", "4.1", "4.2.1", "4.2.2", "4.2.3",
    "4.3", "4.4", "4.5", "4.6", "6.1", "6.2.1", "6.2.2", "6.3.1", "6.3.2", "6.3.3", "7.1",
];
/// §1.5.2 in its order, and slow retrieval.
const ATTACKS: [&str; 11] = [
    "Arbitrary installation",
    "Endless data",
    "Extraneous dependencies",
    "Fast-forward",
    "Indefinite freeze",
    "Malicious mirrors",
    "Mix-and-match",
    "Rollback",
    "Key compromises",
    "Wrong software",
    "Slow retrieval",
];
const RULES: u32 = 13;
const ADVISORIES: [&str; 23] = [
    "CVE-2020-6174",
    "CVE-2020-15093",
    "CVE-2026-6966",
    "CVE-2020-6173",
    "CVE-2020-15163",
    "CVE-2021-41131",
    "CVE-2021-41149",
    "CVE-2021-41150",
    "CVE-2026-6968",
    "CVE-2026-24686",
    "CVE-2022-29173",
    "CVE-2024-47534",
    "CVE-2026-23991",
    "CVE-2026-23992",
    "go-tuf #721",
    "go-tuf #733",
    "go-tuf #716",
    "CVE-2025-2885",
    "CVE-2025-2886",
    "CVE-2025-2887",
    "CVE-2025-2888",
    "CVE-2026-6967",
    "python-tuf #2978",
];

/// A row of the page: what it is about, and the names on it.
#[derive(Debug)]
struct Row {
    subjects: Vec<String>,
    code: Vec<String>,
    tests: Vec<String>,
}

fn page() -> String {
    fs::read_to_string(root().join("docs/SPECIFICATION.md")).unwrap()
}

/// The rows of all tables: the subject in the first cell, code and tests in the last two.
fn rows() -> Vec<Row> {
    let row = |line: &str| {
        let cells: Vec<&str> =
            line.strip_prefix("| ")?.trim_end().trim_end_matches('|').split(" | ").map(str::trim).collect();
        let (first, [.., code, tests]) = (*cells.first()?, &cells[..]) else { return None };
        if first == "§" || cells.iter().any(|cell| cell.starts_with("---")) || *tests == "tests" {
            return None;
        }
        let subjects = first.split(", ").map(str::to_owned).collect();
        Some(Row { subjects, code: quoted(code), tests: quoted(tests) })
    };
    page().lines().filter_map(row).collect()
}

#[test]
fn every_section_attack_rule_and_advisory_has_its_row() {
    let steps = WORKFLOW.iter().flat_map(|(section, steps)| (1..=*steps).map(move |step| format!("{section}.{step}")));
    let steps = steps.filter(|step| step != "5.4.3");
    let fixed = DEEPER.iter().chain(&SECTIONS).chain(&ATTACKS).chain(&ADVISORIES).map(|name| (*name).to_owned());
    let rules = (1..=RULES).map(|rule| rule.to_string());
    let rows = rows();
    let there: BTreeSet<&String> = rows.iter().flat_map(|row| &row.subjects).collect();
    let missing: Vec<String> = steps.chain(fixed).chain(rules).filter(|subject| !there.contains(subject)).collect();
    assert!(missing.is_empty(), "docs/SPECIFICATION.md has no row for {missing:?}");
}

#[test]
fn every_row_names_code_and_tests_that_exist() {
    let tree = Tree::read();
    let mut wrong = Vec::new();
    let rows = rows();
    assert!(rows.len() > 90, "{} rows are read", rows.len());
    for Row { subjects, code, tests } in &rows {
        let about = subjects.join(", ");
        if code.is_empty() || tests.is_empty() {
            wrong.push(format!("{about}: names no code or no test"));
        }
        wrong.extend(code.iter().filter(|word| !is_code(word)).map(|word| format!("{about}: {word} is no code")));
        wrong.extend(tests.iter().filter(|word| is_code(word)).map(|word| format!("{about}: {word} is no test")));
    }
    for word in quoted(&page()) {
        if let Some((file, item)) = word.split_once("::").filter(|_| is_code(&word)) {
            if !tree.items.get(file).is_some_and(|items| items.contains(item)) {
                wrong.push(format!("{word} does not exist"));
            }
        } else if is_test(&word) && !tree.tests.contains(&word) && !is_setting(&word) {
            wrong.push(format!("there is no test {word}"));
        }
    }
    assert!(wrong.is_empty(), "docs/SPECIFICATION.md:\n{}", wrong.join("\n"));
}

/// Settings that the page speaks of.
fn is_setting(word: &str) -> bool {
    ["refresh_stale_max", "metadata_url"].contains(&word)
}

#[test]
fn rows_and_names_are_read_as_they_stand() {
    let rows = rows();
    let row = |subject: &str| rows.iter().find(|row| row.subjects.iter().any(|found| found == subject)).unwrap();
    assert_eq!(row("5.3.4").code, ["tuf/stages.rs::accept_root"]);
    assert_eq!(row("CVE-2020-15093").subjects.len(), 3);
}
