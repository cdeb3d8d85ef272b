//! Lock files of all kinds.

use crate::lockfile::{self, Limits, Lock, LockError};

/// The same bytes as each kind of lock file. What is pinned is pinned with a digest; written as a requirements file
/// it reads as the same pins; messages are one line.
pub fn lockfiles(data: &[u8]) {
    let limits = Limits::default();
    for name in ["requirements.txt", "pylock.toml", "uv.lock", "poetry.lock", "unknown"] {
        match lockfile::read(name, data, &limits) {
            Ok(lock) => check(&lock, &limits),
            Err(error) => {
                assert!(!error.to_string().contains(char::is_control), "{error:?}");
                if let LockError::Malformed { at, .. } = &error {
                    let lines = 1 + data.iter().filter(|byte| **byte == b'\n').count();
                    assert!(at.line.is_none_or(|line| (1..=lines).contains(&line)), "{error:?} of {lines} lines");
                }
            }
        }
    }
}

fn check(lock: &Lock, limits: &Limits) {
    for left_out in &lock.left_out {
        assert!(!left_out.to_string().contains(char::is_control), "{left_out:?}");
    }
    let mut text = String::new();
    for pin in &lock.pins {
        assert!(!pin.files.is_empty(), "{pin:?} pins nothing");
        text += &format!("{}=={}", pin.project, pin.version);
        for file in &pin.files {
            text += &format!(" --hash={}", file.sha256);
        }
        text.push('\n');
    }
    let again = lockfile::read("requirements.txt", text.as_bytes(), limits).unwrap();
    assert_eq!(again.pins.len(), lock.pins.len(), "{text}");
    for (one, other) in lock.pins.iter().zip(&again.pins) {
        assert_eq!((&one.project, &one.version), (&other.project, &other.version));
        let digests = |pin: &lockfile::Pin| -> std::collections::BTreeSet<_> {
            pin.files.iter().map(|file| file.sha256.clone()).collect()
        };
        assert_eq!(digests(one), digests(other));
    }
}
