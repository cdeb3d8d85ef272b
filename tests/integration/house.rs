//! The house: nothing that only one machine or one registry knows, and no test file that nobody runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::folder;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file under version control; without version control every file outside the build folder.
fn own_files() -> Vec<PathBuf> {
    let listed = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output();
    if let Ok(output) = listed
        && output.status.success()
        && !output.stdout.is_empty()
    {
        let names = String::from_utf8(output.stdout).unwrap();
        return names.split('\0').filter(|name| !name.is_empty()).map(|name| root().join(name)).collect();
    }
    let skipped = |file: &PathBuf| ["target", ".git"].iter().any(|name| file.starts_with(root().join(name)));
    folder::files_below(root()).into_iter().filter(|file| !skipped(file)).collect()
}

#[test]
fn no_file_names_a_registry_host_or_a_place_on_one_machine() {
    // In parts, so that this file does not hold them.
    let hosts = [
        ["py", "pi.org"],
        ["python", "hosted.org"],
        ["crates", ".io"],
        ["npm", "js.org"],
        ["npm", "js.com"],
        ["docker", ".io"],
        ["gh", "cr.io"],
        ["qu", "ay.io"],
        ["rubygems", ".org"],
        ["debian", ".org"],
    ];
    let places = [["/wo", "rk/"], ["/ho", "me/"], ["/us", "ers/"]];
    let forbidden: Vec<String> = hosts.iter().chain(&places).map(|parts| parts.concat()).collect();
    let mut found = Vec::new();
    for file in own_files() {
        // The lock file of the build names where its packages come from; that is its format.
        if file.file_name().is_some_and(|name| name == "Cargo.lock") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for name in forbidden.iter().filter(|name| lower.contains(name.as_str())) {
                found.push(format!("{}:{}: {name}", file.strip_prefix(root()).unwrap().display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_test_file_is_declared() {
    let tests = root().join("tests/integration");
    for file in folder::files_below(&tests) {
        let inner = file.strip_prefix(&tests).unwrap();
        let is_rust = inner.extension().is_some_and(|extension| extension == "rs");
        let name = inner.file_stem().unwrap().to_str().unwrap();
        if !is_rust || name == "main" || name == "mod" {
            continue;
        }
        let parent = inner.parent().unwrap();
        let declaring = if parent == Path::new("") { tests.join("main.rs") } else { tests.join(parent).join("mod.rs") };
        let text = fs::read_to_string(&declaring).unwrap();
        let declared = text.lines().any(|line| line.trim_start_matches("pub ").trim() == format!("mod {name};"));
        assert!(declared, "{} is not declared in {}", inner.display(), declaring.display());
    }
}

#[test]
fn no_source_file_has_outgrown_its_readers() {
    // Lines; past this a file has two subjects.
    const LINES_MAX: usize = 1_000;
    let long: Vec<String> = own_files()
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|file| {
            let lines = fs::read_to_string(&file).ok()?.lines().count();
            (lines > LINES_MAX).then(|| format!("{} has {lines} lines", file.display()))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
