//! The store against maps of what must and what may be there.

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

/// What happens while nothing fails.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u8),
    Get(u8),
    Remove(u8),
    Shrink(u8),
    Harm(u8, u8),
    Recheck(u8),
    Restart,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let step = prop_oneof![
        5 => (0..6_u8).prop_map(Step::Put),
        6 => (0..6_u8).prop_map(Step::Get),
        1 => (0..6_u8).prop_map(Step::Remove),
        1 => (0..11_u8).prop_map(Step::Shrink),
        2 => (0..6_u8, 0..5_u8).prop_map(|(which, how)| Step::Harm(which, how)),
        1 => (0..6_u8).prop_map(Step::Recheck),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// The reference: what is there, the least recently used first, and whether its file was harmed.
#[derive(Debug, Default)]
struct Reference(Vec<(u8, bool)>);

impl Reference {
    fn take(&mut self, which: u8) -> Option<bool> {
        let at = self.0.iter().position(|(other, _)| *other == which)?;
        Some(self.0.remove(at).1)
    }

    fn charged(&self) -> u64 {
        self.0.iter().map(|(which, _)| ledger::charge(content(*which).len() as u64)).sum()
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|(which, _)| content(*which).len() as u64).sum()
    }

    fn put(&mut self, which: u8) {
        // Room is made before what is replaced goes.
        while self.charged() + ledger::charge(content(which).len() as u64) > LIMIT {
            self.0.remove(0);
        }
        self.take(which);
        self.0.push((which, false));
    }

    /// Whether a look must find it.
    fn get(&mut self, which: u8) -> bool {
        let harmed = self.take(which);
        if harmed == Some(false) {
            self.0.push((which, false));
        }
        harmed == Some(false)
    }
}

/// Changes a file in one of five ways.
fn harm(path: &Path, how: u8) {
    let open = || fs::OpenOptions::new().write(true).open(path).unwrap();
    match how {
        0 => open().write_all_at(b"\xff\xff", 77).unwrap(),
        1 => open().set_len(5).unwrap(),
        2 => open().write_all_at(b"longer", 10_000_000).unwrap(),
        3 => {
            fs::remove_file(path).unwrap();
            symlink("/dev/null", path).unwrap();
        }
        _ => fs::hard_link(path, path.ancestors().nth(5).unwrap().join(format!("other-{}", rand()))).unwrap(),
    }
}

fn rand() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    /// While nothing fails the store is exactly the reference: the same hits, evictions and bytes, whatever is done to
    /// the files, and across restarts.
    #[test]
    fn while_nothing_fails_hits_evictions_and_bytes_are_those_of_the_reference(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut rig = Rig::in_folder(quick_folder());
            let mut reference = Reference::default();
            for step in steps {
                match step {
                    Step::Put(which) => {
                        rig.put(&content(which)).await;
                        reference.put(which);
                    }
                    Step::Get(which) => {
                        let found = rig.store.get(&expected(&content(which))).unwrap();
                        assert_eq!(found.is_some(), reference.get(which), "{step:?} {reference:?}");
                        if let Some(blob) = found {
                            assert_eq!(blob.read_all().await.unwrap(), content(which));
                        }
                    }
                    Step::Remove(which) => {
                        let removed = rig.store.remove(&expected(&content(which)).id()).unwrap();
                        assert_eq!(removed, reference.take(which).is_some());
                    }
                    Step::Shrink(to) => {
                        let to = u64::from(to) * 100_000;
                        rig.store.shrink(ByteSize(to));
                        while reference.bytes() > to {
                            reference.0.remove(0);
                        }
                    }
                    Step::Harm(which, how) => {
                        if let Some(entry) = reference.0.iter_mut().find(|(other, harmed)| *other == which && !harmed) {
                            entry.1 = true;
                            harm(&rig.path(&expected(&content(which))), how);
                        }
                    }
                    Step::Recheck(which) => {
                        let found = rig.store.recheck(&expected(&content(which)).id()).unwrap();
                        match reference.take(which) {
                            None => assert_eq!(found, Recheck::Absent),
                            Some(true) => assert!(matches!(found, Recheck::Bad(_)), "{found:?}"),
                            Some(false) => {
                                assert_eq!(found, Recheck::Good(content(which).len() as u64));
                                reference.0.push((which, false));
                            }
                        }
                    }
                    Step::Restart => {
                        rig = rig.reopened();
                        // What is no file by now is removed as a stranger.
                        let path = |which| rig.path(&expected(&content(which)));
                        reference.0.retain(|(which, _)| path(*which).exists());
                    }
                }
                let usage = rig.store.usage();
                assert_eq!((usage.blobs, usage.bytes), (reference.0.len() as u64, reference.bytes()), "{step:?}");
            }
        });
    }
}
