//! Every refusal says which role it is about, what was expected and what was found, in one line that an installer can
//! print whole.

use super::now;
use crate::{
    base::{Algorithm, ByteSize, Digest, Hasher},
    tuf::{RoleName, TufError, Version},
};

/// The longest line that pip is given.
const LINE_MAX: usize = 300;
/// What else stands in it: `repository "…": ` before, ` (id …)` behind.
const AROUND: usize = 40;

fn role(name: &str) -> RoleName {
    RoleName::new(name).unwrap()
}

fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn digest(algorithm: Algorithm, content: &[u8]) -> Digest {
    let mut hasher = Hasher::new([algorithm]);
    hasher.update(content);
    hasher.finish().remove(0)
}

/// What the sentence of an error has to say: its role, what was expected, what was found. Exhaustive on purpose: a new
/// variant does not compile before its evidence is written down here.
fn evidence(error: &TufError) -> Vec<String> {
    let shown = |role: &RoleName| role.as_str().chars().take(20).collect::<String>();
    match error {
        TufError::Canonical { role, detail } | TufError::Schema { role, detail } => {
            vec![shown(role), detail.chars().take(60).collect()]
        }
        TufError::TooLarge { role, limit, actual } => vec![shown(role), limit.bytes().to_string(), actual.to_string()],
        TufError::Limit { role, what, limit, actual } => {
            vec![shown(role), (*what).to_owned(), limit.to_string(), actual.to_string()]
        }
        TufError::Signature { role, by, threshold } => {
            vec![shown(role), shown(by), threshold.to_string(), "no valid signature".to_owned()]
        }
        TufError::Threshold { role, by, threshold, valid } => {
            vec![shown(role), shown(by), threshold.to_string(), valid.to_string()]
        }
        TufError::Expired { role, expires } => vec![shown(role), "expired".to_owned(), expires.to_string()],
        TufError::Rollback { role, trusted, offered } => vec![shown(role), trusted.to_string(), offered.to_string()],
        TufError::Dropped { role, trusted } => vec![shown(role), trusted.to_string(), "no longer lists".to_owned()],
        TufError::MixAndMatch { role, by, expected, actual } => {
            vec![shown(role), shown(by), expected.to_string(), actual.to_string()]
        }
        TufError::RootVersion { expected, actual } => {
            vec!["root".to_owned(), expected.to_string(), actual.to_string()]
        }
        TufError::Hash { role, expected, actual } => {
            let first = |digest: &Digest| digest.to_hex()[..64].to_owned();
            vec![shown(role), expected.algorithm().to_string(), first(expected), first(actual)]
        }
        TufError::Length { role, expected, actual } => vec![shown(role), expected.to_string(), actual.to_string()],
        TufError::NotInSnapshot { role } => vec![shown(role), "snapshot does not list".to_owned()],
        TufError::NoDigest { by, of, detail } => {
            vec![shown(by), of.chars().take(20).collect(), detail.chars().take(60).collect()]
        }
        TufError::WrongDelegation { role } => vec![shown(role), "another delegation".to_owned()],
        TufError::TargetUrl { path } => {
            vec![path.as_str().chars().take(20).collect(), "leaves the folder".to_owned()]
        }
        TufError::Floor { detail } => vec!["rollback record".to_owned(), detail.chars().take(60).collect()],
    }
}

/// An error of each kind about a role of that name; numbers as long as they get.
fn errors(name: &str) -> Vec<TufError> {
    let (role, by) = (role(name), role(name));
    let (most, least) = (Version::new((1 << 53) - 1).unwrap(), version(1));
    let detail = "what is wrong at byte 4294967295: expected the end of the list".to_owned();
    let hash = |algorithm| TufError::Hash {
        role: RoleName::new(name).unwrap(),
        expected: digest(algorithm, b"signed"),
        actual: digest(algorithm, b"found"),
    };
    let path = format!("../{name}").parse().unwrap();
    vec![
        TufError::Canonical { role: role.clone(), detail: detail.clone() },
        TufError::Schema { role: role.clone(), detail: detail.clone() },
        TufError::TooLarge { role: role.clone(), limit: ByteSize::gib(4), actual: u64::MAX },
        TufError::Limit { role: role.clone(), what: "delegated roles visited", limit: 32, actual: 33 },
        TufError::Signature { role: role.clone(), by: by.clone(), threshold: u32::MAX },
        TufError::Threshold { role: role.clone(), by: by.clone(), threshold: u32::MAX, valid: 255 },
        TufError::Expired { role: role.clone(), expires: now() },
        TufError::Rollback { role: role.clone(), trusted: most, offered: least },
        TufError::Dropped { role: role.clone(), trusted: most },
        TufError::MixAndMatch { role: role.clone(), by, expected: most, actual: least },
        TufError::RootVersion { expected: most, actual: least },
        hash(Algorithm::Sha256),
        hash(Algorithm::Sha512),
        hash(Algorithm::Blake2b256),
        TufError::Length { role: role.clone(), expected: u64::MAX, actual: 0 },
        TufError::NotInSnapshot { role: role.clone() },
        TufError::NoDigest { by: role.clone(), of: format!("target {name}"), detail: detail.clone() },
        TufError::WrongDelegation { role },
        TufError::TargetUrl { path },
        TufError::Floor { detail },
    ]
}

#[test]
fn the_sentence_of_every_refusal_names_its_role_what_was_expected_and_what_was_found() {
    let errors = errors("projects/numpy");
    let kinds: std::collections::HashSet<_> = errors.iter().map(std::mem::discriminant).collect();
    // As many as `evidence` has arms: the last word of the exhaustive match above.
    assert_eq!(kinds.len(), 18);
    for error in errors {
        let sentence = error.to_string();
        for word in evidence(&error) {
            assert!(sentence.contains(&word), "{word:?} is not in {sentence:?}");
        }
        assert!(sentence.len() + AROUND <= LINE_MAX, "{} characters: {sentence}", sentence.len());
    }
}

#[test]
fn a_role_with_an_endless_name_cannot_crowd_out_the_evidence() {
    let names = ["x".repeat(1024), "\u{1F480}".repeat(256), "a/".repeat(512), "\\".repeat(1024), "\"".repeat(1024)];
    for name in names {
        for error in errors(&name) {
            let sentence = error.to_string();
            assert!(sentence.is_ascii() && sentence.len() + AROUND <= LINE_MAX, "{}: {sentence}", sentence.len());
            assert!(!sentence.contains(char::is_control), "{sentence:?}");
            // The name itself is shortened, and escaped where it is not ASCII; all the rest stands there whole.
            for word in evidence(&error).iter().filter(|word| !name.contains(word.as_str()) && !is_name(word)) {
                assert!(sentence.contains(word.as_str()), "{word:?} is not in {sentence:?}");
            }
        }
    }
}

/// Whether that is the beginning of the path or of the target that the hostile name is part of.
fn is_name(word: &str) -> bool {
    word.starts_with("../") || word.starts_with("target ")
}

#[test]
fn words_quoted_from_hostile_metadata_are_bounded_and_plain() {
    let bidi = "\u{202e}\r\n\u{0}é".repeat(400);
    for detail in ["x".repeat(1 << 20), bidi] {
        let role = role("targets");
        for error in [
            TufError::Schema { role: role.clone(), detail: detail.clone() },
            TufError::Canonical { role: role.clone(), detail: detail.clone() },
            TufError::NoDigest { by: role.clone(), of: detail.clone(), detail: detail.clone() },
            TufError::Floor { detail: detail.clone() },
        ] {
            let sentence = error.to_string();
            assert!(sentence.is_ascii() && sentence.len() <= LINE_MAX, "{}", sentence.len());
            assert!(!sentence.contains(char::is_control), "{sentence:?}");
        }
    }
}

#[test]
fn an_error_that_is_about_a_role_says_so_to_programs_too() {
    let about = errors("projects/numpy").into_iter().filter(|error| error.role().is_some()).count();
    // All but those of root's version, of a target's path and of our own record.
    assert_eq!(about, errors("projects/numpy").len() - 3);
}
