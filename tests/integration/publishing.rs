//! What is published under way: a long publication that is killed, a second server of timestamps, a renewal by a timer.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{dice::Dice, folder, gate};

/// Roles of a publication that takes a while.
const BINS: &str = "1024";
/// Kills in one run of `cargo test`.
const KILLS: u64 = 12;

fn tufgate(home: &Path, arguments: &[&str]) -> String {
    let ended = gate::run(home, arguments);
    assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

fn repository(home: &Path, name: &str) -> String {
    let dir = home.join(name).to_str().unwrap().to_owned();
    tufgate(home, &["repo", "init", &dir]);
    dir
}

fn status(home: &Path, dir: &str) -> Value {
    // Verifies every role on the way, and says of each who has to sign it: more than a pipe holds.
    let ended = gate::tufgate(home).args(["repo", "status", dir, "--json"]).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&ended.stdout).unwrap()
}

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = gate::tufgate(home);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn a_long_publication_that_is_killed_at_any_moment_is_not_there_or_finished_by_the_next_command() {
    let home = folder::temporary();
    let home = home.path();
    // How long one takes that nobody kills.
    let whole = repository(home, "whole");
    tufgate(home, &["repo", "delegate", &whole, "--bins", BINS]);
    let start = Instant::now();
    tufgate(home, &["repo", "publish", &whole]);
    let takes = u64::try_from(start.elapsed().as_micros()).unwrap();
    let mut dice = Dice::new(20);
    let (mut cut, mut seen) = (0, 0);
    for round in 0..KILLS {
        let dir = repository(home, &format!("killed-{round}"));
        tufgate(home, &["repo", "delegate", &dir, "--bins", BINS]);
        let mut publishing = command(home, &["repo", "publish", &dir]).spawn().unwrap();
        thread::sleep(Duration::from_micros(dice.below(takes)));
        publishing.kill().unwrap();
        cut += u64::from(!publishing.wait().unwrap().success());
        let now = status(home, &dir);
        let versions: Vec<u64> =
            now["roles"].as_array().unwrap()[1..4].iter().map(|role| role["version"].as_u64().unwrap()).collect();
        assert!(versions == [1, 1, 1] || versions == [2, 2, 2], "round {round}: {versions:?}");
        seen += versions[0] - 1;
        tufgate(home, &["repo", "publish", &dir]);
        let now = status(home, &dir);
        assert_eq!(now["roles"][1]["version"], 2, "round {round}");
        assert_eq!((&now["unfinished"], &now["staged"]["delegations"]), (&false.into(), &false.into()));
        let names = fs::read_dir(home.join(&dir).join("published/metadata")).unwrap();
        let bins = names.filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().contains(".bins-"));
        assert_eq!(bins.count(), 1024, "round {round}");
        assert!(!Path::new(&dir).join("staged/publication").exists());
    }
    assert!(cut > 0, "no publication was killed; {seen} were through");
}

#[test]
fn a_second_server_of_timestamps_is_refused_in_one_sentence_and_the_first_goes_on() {
    let home = folder::temporary();
    let home = home.path();
    let dir = repository(home, "dir");
    let mut first = command(home, &["repo", "serve-timestamps", &dir]).spawn().unwrap();
    let mut lines = BufReader::new(first.stderr.take().unwrap()).lines();
    // Once it says when the next renewal is due, it holds its lock.
    assert!(lines.any(|line| line.unwrap().contains("next renewal")));
    let second = gate::run(home, &["repo", "serve-timestamps", &dir]);
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("another `tufgate repo serve-timestamps` works on"), "{said}");
    // A command that renews by hand is no second server.
    tufgate(home, &["repo", "publish", &dir, "--refresh"]);
    assert!(first.try_wait().unwrap().is_none());
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_timer_renews_what_is_due_and_nothing_else_and_says_when_it_will_be() {
    let home = folder::temporary();
    let home = home.path();
    let dir = repository(home, "dir");
    let timestamp = Path::new(&dir).join("published/metadata/timestamp.json");
    let before = fs::read(&timestamp).unwrap();
    let said = tufgate(home, &["repo", "publish", &dir, "--refresh", "--if-due"]);
    assert!(said.starts_with("next renewal due "), "{said}");
    assert_eq!(fs::read(&timestamp).unwrap(), before);
    let said = tufgate(home, &["repo", "publish", &dir, "--refresh"]);
    assert!(said.contains("timestamp") && said.contains("version    2"), "{said}");
    assert_ne!(fs::read(&timestamp).unwrap(), before);
    let refused = gate::run(home, &["repo", "publish", &dir, "--if-due"]);
    assert_eq!(refused.status.code(), Some(2));
}
