//! Map files of several repositories (TAP 4).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::trust::map::Map;

/// A map reads back as written and has what the text has; every entry can reach its threshold with repositories that are
/// listed, each once; what is wrong is said in one line.
pub fn maps(data: &[u8]) {
    let map = match Map::parse(data) {
        Ok(map) => map,
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            return;
        }
    };
    assert_eq!(Map::parse(map.to_json().unwrap().as_bytes()), Ok(map.clone()));
    let value: Value = serde_json::from_slice(data).expect("serde_json alone refuses a map that was read");
    let mapping = value["mapping"].as_array().expect("a map without entries was read");
    assert_eq!(
        (mapping.len(), value["repositories"].as_object().map(|known| known.len())),
        (map.entries().len(), Some(map.repositories().len()))
    );
    for (entry, text) in map.entries().iter().zip(mapping) {
        let distinct: BTreeSet<&String> = entry.repositories.iter().collect();
        assert!((1..=distinct.len()).contains(&entry.threshold), "{entry:?} cannot be satisfied, or always is");
        assert!(distinct.iter().all(|name| map.repositories().contains_key(*name)));
        assert_eq!(text["threshold"].as_u64(), u64::try_from(entry.threshold).ok());
        assert_eq!(text["terminating"].as_bool(), Some(entry.terminating));
    }
    for doubt in map.doubts(&|_| Vec::new()) {
        assert!(!doubt.contains('\n'), "{doubt:?}");
    }
}
