//! Where an approval came from, as it stands signed in the `custom` of each approved file.
//!
//! ```json
//! {"tufgate": {"provenance": "locked", "digest": "downloaded", "approved": "2026-01-31T12:00:00Z", "from": "uv.lock",
//!              "by": "alice"}}
//! ```
//! Of an sdist that was looked into it also says what it needs to be built, and to run where it promises that:
//! `"needs": {"build": ["setuptools>=61"], "run": ["idna>=2"], "python": ">=3.9"}`. It stands here, and not in a file beside the
//! repository, because it is then signed with the file it is about, goes where that goes (bins, other machines, ceremonies)
//! and ends with it; and so a later check of what is signed downloads nothing. Other clients ignore it.

use serde::{Deserialize, Serialize};

use super::sdist::Needs;

/// The member of `custom` that is ours.
const MEMBER: &str = "tufgate";

/// Why a digest is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provenance {
    /// A lock file named it.
    Locked,
    /// It is what the index or the folder had when the file was first approved.
    FirstSeen,
}

/// How the signed digest and length were obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DigestSource {
    /// The file was downloaded and hashed.
    Downloaded,
    /// Taken from the lock file, the length from the index.
    Lock,
    /// The file was read from a folder and hashed.
    Folder,
}

/// One approval of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Why the digest is believed.
    pub provenance: Provenance,
    /// How digest and length were obtained.
    pub digest: DigestSource,
    /// When, as TUF writes times.
    pub approved: String,
    /// The name of the lock file or folder, without its folders, or the project and versions that were asked for.
    pub from: String,
    /// Who approved it, as they called themselves. Public, as all that is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The extras that were asked for, in their normal form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extras: Vec<String>,
    /// Of an sdist that was downloaded: what it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Needs>,
}

impl Record {
    /// As `custom` of a target.
    pub fn to_custom(&self) -> serde_json::Value {
        serde_json::json!({ MEMBER: self })
    }

    /// Out of the `custom` of a target; `None` where it is not one of ours.
    pub fn of_custom(custom: Option<&serde_json::Value>) -> Option<Self> {
        serde_json::from_value(custom?.get(MEMBER)?.clone()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_foreign_custom_data_is_none() {
        let record = Record {
            provenance: Provenance::FirstSeen,
            digest: DigestSource::Lock,
            approved: "2026-01-31T12:00:00Z".to_owned(),
            from: "uv.lock".to_owned(),
            by: Some("alice".to_owned()),
            extras: vec!["socks".to_owned()],
            needs: Some(Needs { build: Some(vec!["flit-core".to_owned()]), ..Needs::default() }),
        };
        let custom = record.to_custom();
        assert_eq!(custom["tufgate"]["provenance"], "first-seen");
        assert_eq!(custom["tufgate"]["needs"], serde_json::json!({ "build": ["flit-core"] }));
        assert_eq!(Record::of_custom(Some(&custom)), Some(record));
        assert_eq!(Record::of_custom(Some(&serde_json::json!({ "other": 1 }))), None);
        assert_eq!(Record::of_custom(None), None);
    }
}
