//! The store against a map of what may be there.

use super::{
    failing::{fill_and_look, quick_folder},
    *,
};

/// What may happen to a cache folder, with one of a few blobs each.
#[derive(Clone, Copy, Debug)]
enum Event {
    Put(u8),
    Get(u8),
    Remove(u8),
    Corrupt(u8),
    Fail(u64),
    Restart,
}

fn events() -> impl proptest::strategy::Strategy<Value = Vec<Event>> {
    use proptest::prelude::*;
    let event = prop_oneof![
        4 => (0..6_u8).prop_map(Event::Put),
        6 => (0..6_u8).prop_map(Event::Get),
        1 => (0..6_u8).prop_map(Event::Remove),
        2 => (0..6_u8).prop_map(Event::Corrupt),
        1 => (0..8_u64).prop_map(Event::Fail),
        1 => Just(Event::Restart),
    ];
    proptest::collection::vec(event, 1..40)
}

fn content(which: u8) -> Vec<u8> {
    vec![which; 100_000 + usize::from(which) * 50_000]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    /// Six blobs of together more than the limit. The reference is a map of what may be there: a hit must be right, a
    /// corrupt blob must miss, the budget must hold, and nothing may lie about.
    #[test]
    fn whatever_happens_a_hit_is_right_and_the_budget_holds(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut rig = Rig::in_folder(quick_folder());
            let mut corrupt = [false; 6];
            for event in events {
                match event {
                    Event::Put(which) => {
                        let cache = rig.cache(LIMIT);
                        fill_and_look(&rig, &cache, &content(which)).await.unwrap();
                        corrupt[usize::from(which)] = false;
                    }
                    Event::Get(which) => {
                        let found = rig.store.get(&expected(&content(which))).ok().flatten();
                        if let Some(blob) = found {
                            assert!(!corrupt[usize::from(which)], "a corrupt blob was served");
                            assert_eq!(blob.read_all().await.unwrap(), content(which));
                        }
                    }
                    Event::Remove(which) => {
                        let _ = rig.store.remove(&expected(&content(which)).id());
                    }
                    Event::Corrupt(which) => {
                        let path = rig.path(&expected(&content(which)));
                        if let Ok(file) = fs::OpenOptions::new().write(true).open(path) {
                            file.write_all_at(b"\xff\xff", 77).unwrap();
                            corrupt[usize::from(which)] = true;
                        }
                    }
                    Event::Fail(from) => rig.faults.fail(Errno::IO, None, from, 3),
                    Event::Restart => rig = rig.reopened(),
                }
                let usage = rig.store.usage();
                assert!(usage.bytes + usage.reserved <= LIMIT, "{usage:?}");
            }
            let rig = rig.reopened();
            assert_eq!(rig.temporaries(), 0);
            let on_disk = Inspection::open(&rig.folder.path().join("cache")).unwrap().usage().unwrap();
            let usage = rig.store.usage();
            assert_eq!((usage.blobs, usage.bytes), (on_disk.blobs, on_disk.bytes));
            assert!(usage.bytes <= LIMIT);
        });
    }
}
