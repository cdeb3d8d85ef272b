//! Signed digests of a target's pieces, in `custom` (docs/CHUNKS.md). TUF 1.0.34 leaves `custom` to applications (§4.5).
//!
//! ```json
//! {"tufgate": {"chunks": {"length": 262144, "sha256": "…"}}}
//! ```

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::ChunkDigests;

/// The member of `custom` that is ours.
const MEMBER: &str = "tufgate";

/// What signed metadata says of a target's pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Chunks {
    /// Nothing.
    #[default]
    Unsigned,
    /// Their digests.
    Signed(Arc<ChunkDigests>),
    /// Something that is not understood. It is not used, and no reason to refuse the target: its length and digests say
    /// what it is, and without pieces that can be verified it is only released later.
    Unusable(String),
}

impl Chunks {
    /// What `custom` says of a target of `length` bytes.
    pub fn of_custom(custom: Option<&Value>, length: u64) -> Self {
        #[derive(Deserialize)]
        struct Form {
            length: u64,
            sha256: String,
        }
        let Some(value) = custom.and_then(|custom| custom.get(MEMBER)?.get("chunks")) else { return Self::Unsigned };
        let form = match Form::deserialize(value) {
            Ok(form) => form,
            Err(error) => return Self::Unusable(error.to_string().chars().take(200).collect()),
        };
        match ChunkDigests::new(length, form.length, &form.sha256) {
            Ok(digests) => Self::Signed(Arc::new(digests)),
            Err(error) => Self::Unusable(error.to_string()),
        }
    }

    /// Adds digests to what `custom` has of ours.
    pub fn add_to_custom(custom: &mut Value, digests: &ChunkDigests) {
        let chunks = json!({ "length": digests.chunk_length(), "sha256": digests.to_hex() });
        if !custom.is_object() {
            *custom = json!({});
        }
        if let Some(members) = custom.as_object_mut() {
            let ours = members.entry(MEMBER).or_insert_with(|| json!({}));
            if let Some(ours) = ours.as_object_mut() {
                ours.insert("chunks".to_owned(), chunks);
            }
        }
    }

    /// The digests, where they can be used.
    pub fn signed(&self) -> Option<&Arc<ChunkDigests>> {
        match self {
            Self::Signed(digests) => Some(digests),
            Self::Unsigned | Self::Unusable(_) => None,
        }
    }

    /// Whether both sign digests of the same pieces, and not the same ones: then they do not speak of the same bytes.
    pub fn contradict(&self, other: &Self) -> bool {
        matches!((self.signed(), other.signed()), (Some(one), Some(other)) if one.contradicts(other))
    }

    /// Bytes of memory that they take, roughly.
    pub(super) fn size(&self) -> usize {
        self.signed().map_or(0, |digests| usize::try_from(digests.count()).unwrap_or(0).saturating_mul(32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ByteSize, ChunkHasher};

    fn digests(bytes: &[u8]) -> ChunkDigests {
        let mut hasher = ChunkHasher::new(ByteSize::kib(16)).unwrap();
        hasher.update(bytes);
        hasher.finish().unwrap()
    }

    #[test]
    fn digests_are_read_back_beside_what_else_is_said() {
        let digests = digests(&[1; 40_000]);
        for mut custom in [json!({ "tufgate": { "from": "uv.lock" }, "other": 1 }), json!({}), Value::Null] {
            let before = custom.clone();
            Chunks::add_to_custom(&mut custom, &digests);
            assert_eq!(Chunks::of_custom(Some(&custom), 40_000).signed().map(|found| &**found), Some(&digests));
            assert_eq!((&custom["tufgate"]["from"], &custom["other"]), (&before["tufgate"]["from"], &before["other"]));
        }
    }

    #[test]
    fn what_is_not_understood_is_not_used_and_said_to_be_so() {
        let good = digests(&[1; 40_000]).to_hex();
        let of = |custom: Value| Chunks::of_custom(Some(&custom), 40_000);
        for custom in [json!(null), json!(1), json!([]), json!({}), json!({ "tufgate": 1 }), json!({ "tufgate": {} })] {
            assert_eq!(of(custom), Chunks::Unsigned);
        }
        assert_eq!(Chunks::of_custom(None, 40_000), Chunks::Unsigned);
        for chunks in [
            json!(null),
            json!([]),
            json!("x"),
            json!({ "length": 16_384 }),
            json!({ "sha256": good }),
            json!({ "length": -1, "sha256": good }),
            json!({ "length": "16384", "sha256": good }),
            json!({ "length": 16_384.5, "sha256": good }),
            json!({ "length": 16_384, "sha256": [good] }),
            json!({ "length": 16_384, "sha256": &good[1..] }),
            json!({ "length": 32_768, "sha256": good }),
            json!({ "length": 0, "sha256": good }),
            json!({ "length": 16_384, "sha256": "" }),
        ] {
            let found = of(json!({ "tufgate": { "chunks": chunks } }));
            assert!(matches!(found, Chunks::Unusable(_)), "{chunks}: {found:?}");
        }
        let longer =
            Chunks::of_custom(Some(&json!({ "tufgate": { "chunks": { "length": 16_384, "sha256": good } } })), 60_000);
        assert!(matches!(longer, Chunks::Unusable(_)), "the digests are of a shorter file: {longer:?}");
    }
}
