//! What was stored: the rollback record.

use std::sync::OnceLock;

use super::{later, now};
use crate::{
    base::{Digest, Fault},
    testing::repository::{TestRepository, floors_of},
    tuf::{Floors, RootStage, TimestampStage, TufError},
};

/// A repository whose third state is trusted, at its second state; and the record of the third.
struct Restored {
    stage: TimestampStage,
    second: bytes::Bytes,
    record: Vec<u8>,
}

fn restored() -> &'static Restored {
    static RESTORED: OnceLock<Restored> = OnceLock::new();
    RESTORED.get_or_init(|| {
        let mut repository = TestRepository::new(later());
        repository.publish_next();
        let second = repository.file("timestamp.json");
        repository.publish_next();
        let trusted = repository.update(&Floors::new(), now()).unwrap();
        let stage = RootStage::start(repository.file("1.root.json")).unwrap().finish(now()).unwrap();
        Restored { stage, second, record: floors_of(&trusted).to_json() }
    })
}

/// A rollback record reads back as written; damage is an error and never "less was trusted": no change of the stored
/// record lets an older timestamp through, but for one that has a good check sum and other content, which only whoever
/// may write the state folder can make.
pub fn state(data: &[u8]) {
    let restored = restored();
    for json in [data.to_vec(), with_check_sum(data)] {
        match Floors::from_json(&json) {
            Ok(floors) => {
                assert_eq!(Floors::from_json(&floors.to_json()).as_ref(), Ok(&floors));
                if let Err(error) = restored.stage.clone().accept(restored.second.clone(), &floors, now()) {
                    let is_known = matches!(error, TufError::Floor { .. } | TufError::Rollback { .. });
                    assert!(is_known, "{error}");
                }
            }
            Err(error) => {
                assert!(matches!(error, TufError::Floor { .. }) && error.fault() == Fault::Local);
                assert!(error.to_string().is_ascii(), "{error}");
            }
        }
    }
    let damaged = damage(&restored.record, data);
    if let Ok(floors) = Floors::from_json(&damaged) {
        let old = restored.stage.clone().accept(restored.second.clone(), &floors, now());
        assert!(
            matches!(old, Err(TufError::Rollback { .. })),
            "a damaged record lets an older timestamp through: {old:?}"
        );
    }
}

/// The bytes as what is recorded, under the check sum that they have.
fn with_check_sum(recorded: &[u8]) -> Vec<u8> {
    let head = format!("{{\"sha256\":\"{}\",\"floors\":", Digest::sha256(recorded));
    [head.as_bytes(), recorded, b"}"].concat()
}

/// Overwrites, cuts or doubles parts of the record, as torn writes and bad disks do.
fn damage(record: &[u8], script: &[u8]) -> Vec<u8> {
    let mut bytes = record.to_vec();
    for edit in script.chunks_exact(4).take(16) {
        let [what, high, low, byte] = edit.try_into().unwrap();
        if bytes.is_empty() {
            break;
        }
        let at = usize::from(u16::from_be_bytes([high, low])) % bytes.len();
        match what % 4 {
            0 => bytes[at] = byte,
            1 => bytes.truncate(at),
            2 => bytes[at..].fill(byte),
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}
