//! Map files (TAP 4): which repositories speak for which target paths, and how many of them must agree.
//!
//! ```json
//! {
//!   "repositories": {"ours": ["https://tuf.example/"], "theirs": []},
//!   "mapping": [
//!     {"paths": ["acme-*/*"], "repositories": ["ours"], "terminating": true, "threshold": 1},
//!     {"paths": ["*/*"], "repositories": ["ours", "theirs"], "terminating": true, "threshold": 2}
//!   ]
//! }
//! ```
//! A file says who must agree and nothing else: the root of trust and the URLs of a repository are those of the
//! configuration's `[[repository]]` of the same name. URLs in a map are for other tools that read the file; they are
//! checked for form, compared with the configuration ([`Map::doubts`]) and never fetched from.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    base::ByteSize,
    tuf::{TARGET_PATH_BYTES_MAX, canonical},
};

/// The largest map file.
pub const FILE_MAX: ByteSize = ByteSize::mib(1);
/// The most repositories of a map.
pub const REPOSITORIES_MAX: usize = 64;
/// The most repositories of one entry: agreement is looked for among all their sets.
pub const ENTRY_REPOSITORIES_MAX: usize = 8;
/// The most entries of a map.
pub const ENTRIES_MAX: usize = 1_000;
/// The most patterns of all entries together: each target is compared with every one of them at worst.
pub const PATTERNS_MAX: usize = 4_096;
/// The most URLs of one repository.
pub const URLS_MAX: usize = 64;

/// A map that was read or made, and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Map {
    repositories: BTreeMap<String, Vec<Url>>,
    mapping: Vec<Entry>,
}

/// One entry: for these paths these repositories are asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Patterns of target paths, as in delegations: `*` does not cross `/`.
    pub paths: Vec<String>,
    /// Names of repositories.
    pub repositories: Vec<String>,
    /// Whether no later entry is asked for these paths.
    pub terminating: bool,
    /// How many of the repositories must agree.
    pub threshold: usize,
}

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    repositories: BTreeMap<String, Vec<Url>>,
    mapping: Vec<Entry>,
}

/// A map that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", in_front(.key), one_line(.why))]
pub struct MapError {
    /// Where: `mapping[0].threshold`; empty where the file as a whole is meant.
    pub key: String,
    /// What is wrong, as a sentence.
    pub why: String,
}

fn in_front(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{}: ", one_line(key)) }
}

/// Names and patterns in it are the file's, and may have line breaks.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl Map {
    /// A map of these entries.
    ///
    /// # Errors
    /// The same as for a file that says so.
    pub fn new(repositories: BTreeMap<String, Vec<Url>>, mapping: Vec<Entry>) -> Result<Self, MapError> {
        check(&repositories, &mapping)?;
        Ok(Self { repositories, mapping })
    }

    /// Reads a map file, strictly.
    ///
    /// # Errors
    /// With the place: not JSON, members that are unknown, missing, of another type or there twice, an empty list, a
    /// threshold that is 0 or more than there are repositories, a name twice or not listed, more than the limits of
    /// this module.
    pub fn parse(json: &[u8]) -> Result<Self, MapError> {
        let whole = |why: String| MapError { key: String::new(), why };
        if json.len() > FILE_MAX.as_usize() {
            return Err(whole(format!("is larger than {FILE_MAX}")));
        }
        let mut reader = serde_json::Deserializer::from_slice(json);
        let form: Form = serde_path_to_error::deserialize(&mut reader).map_err(|error| MapError {
            key: Some(error.path().to_string()).filter(|path| path != ".").unwrap_or_default(),
            why: error.into_inner().to_string(),
        })?;
        reader.end().map_err(|error| whole(error.to_string()))?;
        // What two readers could read differently: two members of one name above all.
        canonical::canonicalize(json).map_err(|error| whole(error.to_string()))?;
        Self::new(form.repositories, form.mapping)
    }

    /// The file that says the same, as TAP 4 has it, indented.
    ///
    /// # Errors
    /// None that a checked map could have.
    pub fn to_json(&self) -> Result<String, MapError> {
        let json = serde_json::to_string_pretty(self);
        json.map(|json| json + "\n").map_err(|error| MapError { key: String::new(), why: error.to_string() })
    }

    /// The names of the repositories, each with the URLs that other tools read it from.
    pub fn repositories(&self) -> &BTreeMap<String, Vec<Url>> {
        &self.repositories
    }

    /// The entries, in the order in which they are asked.
    pub fn entries(&self) -> &[Entry] {
        &self.mapping
    }

    /// What is allowed but probably not meant. `configured` gives the metadata URLs that the configuration has for a
    /// repository.
    pub fn doubts(&self, configured: &dyn Fn(&str) -> Vec<Url>) -> Vec<String> {
        let mut doubts = Vec::new();
        for (name, urls) in &self.repositories {
            let within = |url: &Url| urls.iter().any(|base| url.as_str().starts_with(base.as_str()));
            let actual = configured(name);
            if !urls.is_empty() && !actual.is_empty() && !actual.iter().any(within) {
                doubts.push(format!(
                    "repositories.{name}: the map has {} for it, and the configuration reads it from {}, which counts",
                    listed(urls),
                    listed(&actual)
                ));
            }
            if !self.mapping.iter().any(|entry| entry.repositories.contains(name)) {
                doubts.push(format!("repositories.{name}: no entry asks it"));
            }
        }
        for (n, entry) in self.mapping.iter().enumerate() {
            let shadow = self.mapping.iter().take(n).position(|earlier| {
                earlier.terminating && entry.paths.iter().all(|pattern| earlier.paths.contains(pattern))
            });
            if let Some(earlier) = shadow {
                doubts
                    .push(format!("mapping[{n}] is never asked: mapping[{earlier}] is terminating for the same paths"));
            }
            if let Some(pattern) = entry.paths.iter().find(|pattern| pattern.starts_with('/')) {
                doubts
                    .push(format!("mapping[{n}].paths: `{pattern}` matches nothing: target paths begin with no slash"));
            }
        }
        doubts.iter().map(|doubt| one_line(doubt)).collect()
    }

    /// Whether some pattern could match targets of as many segments as `glob` has: `*` does not cross `/`.
    pub fn reaches(&self, glob: &str) -> bool {
        let depth = |pattern: &str| pattern.split('/').count();
        self.mapping.iter().flat_map(|entry| &entry.paths).any(|pattern| depth(pattern) == depth(glob))
    }
}

fn listed(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(", ")
}

fn check(repositories: &BTreeMap<String, Vec<Url>>, mapping: &[Entry]) -> Result<(), MapError> {
    check_count("repositories", "repositories", repositories.len(), REPOSITORIES_MAX)?;
    check_count("mapping", "entries", mapping.len(), ENTRIES_MAX)?;
    for (name, urls) in repositories {
        let wrong = |why: String| Err(MapError { key: format!("repositories.{name}"), why });
        if name.is_empty() {
            return wrong("a repository needs a name".to_owned());
        }
        if urls.len() > URLS_MAX {
            return wrong(format!("{} URLs, more than {URLS_MAX}", urls.len()));
        }
        if let Some(url) = urls.iter().find(|url| !matches!(url.scheme(), "http" | "https" | "file")) {
            return wrong(format!("`{url}` is not an http, https or file URL"));
        }
    }
    let patterns: usize = mapping.iter().map(|entry| entry.paths.len()).sum();
    if patterns > PATTERNS_MAX {
        return Err(MapError {
            key: "mapping".to_owned(),
            why: format!("{patterns} patterns in all, more than {PATTERNS_MAX}"),
        });
    }
    mapping.iter().enumerate().try_for_each(|(n, entry)| check_entry(n, entry, repositories))
}

fn check_entry(n: usize, entry: &Entry, repositories: &BTreeMap<String, Vec<Url>>) -> Result<(), MapError> {
    let key = |member: &str| format!("mapping[{n}].{member}");
    let wrong = |member: &str, why: String| Err(MapError { key: key(member), why });
    check_count(&key("paths"), "patterns", entry.paths.len(), PATTERNS_MAX)?;
    check_count(&key("repositories"), "repositories", entry.repositories.len(), ENTRY_REPOSITORIES_MAX)?;
    if let Some(twice) = duplicate(&entry.paths) {
        return wrong("paths", format!("`{twice}` is there twice"));
    }
    if let Some(bad) = entry.paths.iter().find(|path| path.is_empty() || path.len() > TARGET_PATH_BYTES_MAX) {
        return wrong("paths", format!("a pattern has {} bytes, not 1 to {TARGET_PATH_BYTES_MAX}", bad.len()));
    }
    if let Some(twice) = duplicate(&entry.repositories) {
        return wrong("repositories", format!("`{twice}` is there twice, and would count twice"));
    }
    if let Some(unknown) = entry.repositories.iter().find(|name| !repositories.contains_key(*name)) {
        return wrong("repositories", format!("`{unknown}` is not listed under `repositories`"));
    }
    let most = entry.repositories.len();
    if !(1..=most).contains(&entry.threshold) {
        let why = format!("{} is not between 1 and {most}, the number of repositories", entry.threshold);
        return wrong("threshold", why);
    }
    Ok(())
}

fn check_count(key: &str, what: &str, count: usize, max: usize) -> Result<(), MapError> {
    let wrong = |why: String| Err(MapError { key: key.to_owned(), why });
    match count {
        0 => wrong(format!("is empty: no {what}")),
        count if count > max => wrong(format!("{count} {what}, more than {max}")),
        _ => Ok(()),
    }
}

fn duplicate(texts: &[String]) -> Option<&String> {
    let mut seen = BTreeSet::new();
    texts.iter().find(|text| !seen.insert(*text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn good() -> Value {
        json!({
            "repositories": {"ours": ["https://tuf.example/"], "theirs": []},
            "mapping": [
                {"paths": ["acme-*/*"], "repositories": ["ours"], "terminating": true, "threshold": 1},
                {"paths": ["*/*"], "repositories": ["ours", "theirs"], "terminating": false, "threshold": 2},
            ],
        })
    }

    fn parse(value: &Value) -> Result<Map, String> {
        Map::parse(value.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_form_of_tap_4_is_read() {
        let map = parse(&good()).unwrap();
        assert_eq!(map.entries().len(), 2);
        assert_eq!((map.entries()[1].threshold, map.entries()[1].terminating), (2, false));
        assert_eq!(map.repositories().keys().collect::<Vec<_>>(), ["ours", "theirs"]);
    }

    #[test]
    fn what_is_wrong_names_its_place() {
        for (pointer, value, words) in [
            ("/mapping/0/threshold", json!(0), "mapping[0].threshold: 0 is not between 1 and 1"),
            ("/mapping/1/threshold", json!(3), "mapping[1].threshold: 3 is not between 1 and 2"),
            ("/mapping/1/threshold", json!(-1), "mapping[1].threshold: "),
            ("/mapping/1/threshold", json!("2"), "mapping[1].threshold: "),
            ("/mapping/1/threshold", json!(1.5), "mapping[1].threshold: "),
            ("/mapping/1/terminating", json!(null), "mapping[1].terminating: "),
            ("/mapping/0/paths", json!([]), "mapping[0].paths: is empty"),
            ("/mapping/0/paths", json!([""]), "mapping[0].paths: a pattern has 0 bytes"),
            ("/mapping/0/paths", json!(["a", "a"]), "mapping[0].paths: `a` is there twice"),
            ("/mapping/0/repositories", json!([]), "mapping[0].repositories: is empty"),
            ("/mapping/1/repositories", json!(["ours", "ours"]), "mapping[1].repositories: `ours` is there twice"),
            ("/mapping/1/repositories", json!(["ours", "other"]), "mapping[1].repositories: `other` is not listed"),
            ("/mapping", json!([]), "mapping: is empty"),
            ("/mapping", json!({}), "mapping: "),
            ("/repositories", json!({}), "repositories: is empty"),
            ("/repositories/ours", json!(["nonsense"]), "repositories.ours[0]: "),
            ("/repositories/ours", json!(["ftp://tuf.example/"]), "repositories.ours: `ftp://tuf.example/` is not"),
            ("/repositories/ours", json!("https://tuf.example/"), "repositories.ours: "),
        ] {
            let mut map = good();
            *map.pointer_mut(pointer).unwrap() = value;
            let error = parse(&map).unwrap_err();
            assert!(error.contains(words), "{pointer}: {error}");
        }
    }

    #[test]
    fn members_that_are_unknown_missing_or_there_twice_are_errors() {
        let mut unknown = good();
        unknown["mapping"][0]["treshold"] = json!(1);
        assert!(parse(&unknown).unwrap_err().contains("unknown field `treshold`"));
        let mut top = good();
        top["version"] = json!(1);
        assert!(parse(&top).unwrap_err().contains("unknown field `version`"));
        for member in ["paths", "repositories", "terminating", "threshold"] {
            let mut missing = good();
            missing["mapping"][1].as_object_mut().unwrap().remove(member);
            let error = parse(&missing).unwrap_err();
            assert!(error.contains(&format!("missing field `{member}`")) && error.starts_with("mapping[1]"), "{error}");
        }
        let twice = good().to_string().replacen("\"ours\":[", "\"ours\":[],\"ours\":[", 1);
        assert!(Map::parse(twice.as_bytes()).unwrap_err().to_string().contains("duplicate member"));
        let twice = good().to_string().replacen("\"threshold\":1", "\"threshold\":1,\"threshold\":1", 1);
        assert!(Map::parse(twice.as_bytes()).unwrap_err().to_string().contains("duplicate field `threshold`"));
        for text in ["", "[]", "{", "{\"repositories\": {}} x", "\u{feff}{}"] {
            assert!(Map::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_and_bytes_are_bounded() {
        let names = |count: usize| (0..count).map(|n| format!("r{n}")).collect::<Vec<_>>();
        let map = |repositories: Vec<String>, paths: usize, entries: usize, of: usize| {
            let entry = Entry {
                paths: names(paths),
                repositories: repositories.iter().take(of).cloned().collect(),
                terminating: true,
                threshold: 1,
            };
            let repositories = repositories.into_iter().map(|name| (name, Vec::new())).collect();
            Map::new(repositories, vec![entry; entries])
        };
        assert!(map(names(REPOSITORIES_MAX), 4, ENTRIES_MAX, ENTRY_REPOSITORIES_MAX).is_ok());
        for (bad, key) in [
            (map(names(REPOSITORIES_MAX + 1), 1, 1, 1), "repositories"),
            (map(names(9), 1, 1, ENTRY_REPOSITORIES_MAX + 1), "mapping[0].repositories"),
            (map(names(1), 1, ENTRIES_MAX + 1, 1), "mapping"),
            (map(names(1), PATTERNS_MAX + 1, 1, 1), "mapping"),
            (map(names(1), PATTERNS_MAX / 2 + 1, 2, 1), "mapping"),
        ] {
            assert_eq!(bad.unwrap_err().key, key);
        }
        let large = format!("{}{}", good(), " ".repeat(FILE_MAX.as_usize()));
        assert!(Map::parse(large.as_bytes()).unwrap_err().why.contains("larger"));
    }

    #[test]
    fn what_is_probably_not_meant_is_told() {
        let mut map = good();
        map["repositories"]["unused"] = json!([]);
        map["mapping"].as_array_mut().unwrap().push(json!(
            {"paths": ["acme-*/*"], "repositories": ["theirs"], "terminating": true, "threshold": 1}
        ));
        map["mapping"][1]["paths"] = json!(["/demo/*"]);
        let map = parse(&map).unwrap();
        let elsewhere = |_: &str| vec!["https://other.example/metadata/".parse().unwrap()];
        let doubts = map.doubts(&elsewhere);
        let words = [
            "repositories.ours: the map has",
            "unused: no entry",
            "mapping[1].paths: `/demo/*`",
            "mapping[2] is never",
        ];
        assert_eq!(doubts.len(), words.len(), "{doubts:?}");
        words.iter().zip(&doubts).for_each(|(words, doubt)| assert!(doubt.contains(words), "{doubt}"));
        let there = |_: &str| vec!["https://tuf.example/metadata/".parse().unwrap()];
        assert_eq!(parse(&good()).unwrap().doubts(&there), [""; 0]);
        assert!(map.reaches("*/*") && !map.reaches("*") && !map.reaches("simple/*/x/index.json"));
    }

    prop_compose! {
        fn any_map()(
            names in proptest::collection::btree_set("[a-z0-9]{1,8}", 1..8),
            urls in proptest::collection::vec("[a-z]{1,8}", 0..3),
            entries in proptest::collection::vec(
                (proptest::collection::btree_set("[ -~é]{1,20}", 1..5), any::<bool>(), 1_usize..8, 0_usize..8),
                1..5,
            ),
        ) -> Map {
            let names: Vec<String> = names.into_iter().collect();
            let urls: Vec<Url> = urls.iter().map(|host| format!("https://{host}.example/").parse().unwrap()).collect();
            let entry = |(paths, terminating, of, threshold): (BTreeSet<String>, bool, usize, usize)| {
                let of = of.min(names.len());
                Entry {
                    paths: paths.into_iter().collect(),
                    repositories: names.iter().take(of).cloned().collect(),
                    terminating,
                    threshold: threshold.clamp(1, of),
                }
            };
            let mapping = entries.into_iter().map(entry).collect();
            Map::new(names.iter().map(|name| (name.clone(), urls.clone())).collect(), mapping).unwrap()
        }
    }

    proptest! {
        #[test]
        fn a_map_that_is_written_is_read_as_the_same(map in any_map()) {
            let written = map.to_json().unwrap();
            let read = Map::parse(written.as_bytes()).unwrap();
            prop_assert_eq!(&read, &map);
            prop_assert_eq!(read.to_json().unwrap(), written);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Map::parse(&bytes);
        }
    }
}
