//! Canonical JSON against a second encoder.

use super::tree;
use crate::tuf::canonical;

/// The one-pass canonicaliser and a tree-based encoder give the same bytes, or both refuse.
pub fn canonical(data: &[u8]) {
    let ours = canonical::canonicalize(data);
    let other = tree::canonical(data);
    match (&ours, &other) {
        (Ok(ours), Some(other)) => assert_eq!(ours, other, "two canonical forms"),
        (Ok(_), None) => panic!("only the product has a canonical form"),
        (Err(error), Some(_)) => panic!("only the product refuses: {error}"),
        (Err(_), None) => return,
    }
    let ours = ours.unwrap();
    // Control characters stand unescaped in the canonical form, which then is no JSON any more.
    if ours.iter().all(|byte| *byte >= 0x20) {
        assert_eq!(canonical::canonicalize(&ours).as_ref(), Ok(&ours), "the canonical form of a canonical form");
    }
    if data.len() < 4096 {
        let spaced: Vec<u8> = [b" \t\r\n", data, b" \n"].concat();
        assert_eq!(canonical::canonicalize(&spaced).as_ref(), Ok(&ours), "white space around changes the form");
    }
}
