//! Two tiers: what a bucket can do to a fetch, and what a fetch does for the bucket.

use super::*;
use crate::bucket::{
    self,
    memory::{Memory, Trouble, eventually},
};

/// What the tier tells of itself.
#[derive(Debug, Default)]
struct Told {
    lookups: Mutex<Vec<TierLookup>>,
    puts: Mutex<Vec<TierPut>>,
}

impl Observer for Told {
    fn second_tier_looked_up(&self, lookup: TierLookup, _: u64) {
        self.lookups.lock().unwrap().push(lookup);
    }
    fn second_tier_put(&self, put: TierPut, _: u64) {
        self.puts.lock().unwrap().push(put);
    }
}

/// A gate with a cold cache of its own and a bucket that it shares.
struct Replica {
    rig: Rig,
    told: Arc<Told>,
}

impl Replica {
    fn on(memory: &Memory) -> Self {
        let (replica, uploads, tier) = Self::without_uploads(memory);
        tokio::spawn(uploads.run(tier, replica.rig.delivery.cache().clone()));
        replica
    }

    fn without_uploads(memory: &Memory) -> (Self, Uploads, Arc<SecondTier>) {
        let (mut rig, told) = (Rig::new(), Arc::new(Told::default()));
        let settings = bucket::TierSettings {
            bucket: bucket::Settings::new(Url::parse("s3://test").unwrap()),
            uploads_max: 2,
            uploads_at_once: 1,
            part_size: ByteSize::kib(64),
        };
        let (tier, uploads) = SecondTier::new(memory.bucket(), &settings, Duration::from_secs(600), told.clone());
        let (cache, script) = (rig.delivery.cache().clone(), rig.script.clone());
        rig.delivery =
            Delivery::with_second_tier(cache, script, Some(Arc::clone(&tier)), super::settings(), rig.seen.clone());
        (Self { rig, told }, uploads, tier)
    }

    async fn get(&self, request: &Request) -> Bytes {
        verified(self.rig.obtain(request).await).await
    }

    fn lookups(&self) -> Vec<TierLookup> {
        self.told.lookups.lock().unwrap().clone()
    }

    async fn has_put(&self, puts: &[TierPut]) {
        let found = || self.told.puts.lock().unwrap().clone();
        eventually(&format!("{puts:?}"), || found() == puts).await;
    }
}

fn key(bytes: &[u8]) -> String {
    let hex = Digest::sha256(bytes).to_hex();
    format!("blobs/sha256/{}/{hex}", &hex[..2])
}

/// One that fits a part, and one that does not.
const LENGTHS: [u32; 2] = [30_000, 300_000];

#[tokio::test]
async fn what_one_replica_fetched_another_has_from_the_bucket_without_asking_the_upstream() {
    for length in LENGTHS {
        let (memory, bytes) = (Memory::default(), content(length));
        let request = request(&bytes, &["a"]);
        let (one, other) = (Replica::on(&memory), Replica::on(&memory));
        one.rig.script.set(&url("a"), [whole(&bytes)]);
        assert_eq!(one.get(&request).await, bytes);
        one.has_put(&[TierPut::Stored]).await;
        assert_eq!(memory.get(&key(&bytes)).unwrap(), bytes);
        assert_eq!(other.get(&request).await, bytes);
        assert_eq!((other.rig.requests(), other.rig.seen.fetches.load(Ordering::Relaxed)), (0, 0));
        assert_eq!((one.lookups(), other.lookups()), (vec![TierLookup::Miss], vec![TierLookup::Hit]));
        let asked = memory.asked().len();
        assert_eq!(other.get(&request).await, bytes);
        assert_eq!(memory.asked().len(), asked, "warm: the bucket is not asked either");
    }
}

#[tokio::test]
async fn a_file_that_a_replica_had_from_the_bucket_is_not_put_again_and_one_that_two_fetched_is_there_once() {
    for length in LENGTHS {
        let (memory, bytes) = (Memory::default(), content(length));
        let request = request(&bytes, &["a"]);
        let (one, other) = (Replica::on(&memory), Replica::on(&memory));
        let gate = Arc::new(Notify::new());
        let held = [vec![Step::Wait(Arc::clone(&gate))], sends(&bytes)].concat();
        one.rig.script.set(&url("a"), [steps(held)]);
        other.rig.script.set(&url("a"), [whole(&bytes)]);
        let ((), ()) = tokio::join!(async { assert_eq!(one.get(&request).await, bytes) }, async {
            eventually("the bucket was asked", || !one.lookups().is_empty()).await;
            assert_eq!(other.get(&request).await, bytes);
            other.has_put(&[TierPut::Stored]).await;
            gate.notify_one();
        });
        one.has_put(&[TierPut::Exists]).await;
        let third = Replica::on(&memory);
        assert_eq!(third.get(&request).await, bytes);
        third.has_put(&[]).await;
    }
}

#[tokio::test]
async fn a_poisoned_object_never_reaches_anybody_and_is_replaced_by_the_right_bytes() {
    for length in LENGTHS {
        let bytes = content(length);
        let mut changed = bytes.clone();
        changed[0] ^= 1;
        let mut longer = bytes.clone();
        longer.push(0);
        for poison in [changed, longer, bytes[1..].to_vec(), Vec::new()] {
            let memory = Memory::default();
            memory.plant(&key(&bytes), poison);
            let request = request(&bytes, &["a"]);
            let one = Replica::on(&memory);
            one.rig.script.set(&url("a"), [whole(&bytes)]);
            assert_eq!(one.get(&request).await, bytes);
            assert_eq!(one.lookups(), [TierLookup::Corrupt]);
            assert!(one.rig.seen.failures.lock().unwrap().is_empty(), "the upstream did nothing wrong");
            one.has_put(&[TierPut::Stored]).await;
            assert_eq!(memory.get(&key(&bytes)).unwrap(), bytes);
            let other = Replica::on(&memory);
            assert_eq!((other.get(&request).await, other.lookups()), (bytes.clone().into(), vec![TierLookup::Hit]));
        }
    }
}

#[tokio::test]
async fn of_a_poisoned_object_good_chunks_may_leave_and_the_upstream_goes_on_behind_them() {
    for evil in [0, 100_000, 299_999] {
        let (memory, bytes) = (Memory::default(), content(300_000));
        let mut changed = bytes.clone();
        changed[evil] ^= 1;
        memory.plant(&key(&bytes), changed);
        let replica = Replica::on(&memory);
        replica.rig.script.set(&url("a"), [whole(&bytes)]);
        let delivered = replica.rig.early(&chunks::chunked(&bytes, &["a"])).await.unwrap();
        let got = match delivered.body {
            Body::Verified(blob) => blob.read_all().await.unwrap().to_vec(),
            Body::Early(mut body) => chunks::rest(&mut body, Vec::new()).await.unwrap(),
        };
        assert_eq!(got, bytes);
        assert_eq!((replica.lookups(), replica.rig.requests()), (vec![TierLookup::Corrupt], 1));
    }
}

#[tokio::test]
async fn a_bucket_that_stays_poisoned_is_asked_once_for_a_file_and_after_three_for_none() {
    let memory = Memory::default();
    let replica = Replica::on(&memory);
    memory.suffer(Trouble::TakesNothing);
    for n in 0..6_u8 {
        let bytes = vec![n; 1000];
        memory.plant(&key(&bytes), "poison");
        replica.rig.script.set(&url("a"), [whole(&bytes)]);
        let request = request(&bytes, &["a"]);
        assert_eq!(replica.get(&request).await, bytes);
        replica.rig.delivery.cache().remove(&request.expected.id()).await.unwrap();
        assert_eq!(replica.get(&request).await, bytes);
        replica.rig.delivery.cache().remove(&request.expected.id()).await.unwrap();
    }
    // What was wrong is not asked for again at once; after three in a row nothing is.
    let wrong = [TierLookup::Corrupt, TierLookup::Skipped];
    assert_eq!(replica.lookups()[..5], [&wrong[..], &wrong[..], &wrong[..1]].concat());
    let asked = memory.asked().iter().filter(|asked| asked.starts_with("open")).count();
    assert_eq!((asked, replica.rig.requests()), (3, 12));
}

#[tokio::test]
async fn trouble_of_the_bucket_is_a_miss_that_costs_little_and_never_the_bytes() {
    for trouble in [
        Trouble::Down,
        Trouble::Denies,
        Trouble::Hangs,
        Trouble::HangsInBody,
        Trouble::Trickles,
        Trouble::BreaksOff,
        Trouble::EndsEarly,
        Trouble::TakesNothing,
    ] {
        let memory = Memory::default();
        let replica = Replica::on(&memory);
        memory.suffer(trouble);
        for n in 0..8_u8 {
            let bytes = vec![n; 20_000];
            if trouble != Trouble::TakesNothing {
                memory.plant(&key(&bytes), bytes.clone());
            }
            replica.rig.script.set(&url("a"), [whole(&bytes)]);
            assert_eq!(replica.get(&request(&bytes, &["a"])).await, bytes, "{trouble:?}");
        }
        assert_eq!(replica.rig.requests(), 8, "{trouble:?}: each from the upstream");
        assert!(!replica.lookups().contains(&TierLookup::Hit), "{trouble:?}");
        let asked = memory.asked().iter().filter(|asked| asked.starts_with("open")).count();
        let rests = !matches!(trouble, Trouble::Denies | Trouble::TakesNothing);
        assert_eq!(asked < 8, rests, "{trouble:?}: asked {asked} times");
        replica.rig.delivery.cache().verify(|_, _| std::ops::ControlFlow::Continue(())).unwrap();
    }
}

#[tokio::test]
async fn the_bucket_serves_while_the_upstream_is_away_and_its_verdicts_are_not_the_upstreams() {
    let (memory, bytes) = (Memory::default(), content(30_000));
    memory.plant(&key(&bytes), bytes.clone());
    let replica = Replica::on(&memory);
    replica.rig.script.set(&url("a"), [Answer::Down]);
    assert_eq!(replica.get(&request(&bytes, &["a"])).await, bytes);
    // A file with no upstream at all.
    let other = content(20_000);
    memory.plant(&key(&other), other.clone());
    assert_eq!(replica.get(&request(&other, &[])).await, other);
    // Both are wrong: the refusal is the upstream's, with its digests.
    let third = content(10_000);
    memory.plant(&key(&third), vec![0; 10_000]);
    replica.rig.script.set(&url("a"), [whole(&vec![1; 10_000])]);
    let error = replica.rig.obtain(&request(&third, &["a"])).await.unwrap_err();
    let DeliveryError::Hash { actual, .. } = &error else { panic!("{error}") };
    assert_eq!(*actual, Digest::sha256(&[1; 10_000]));
    assert_eq!(memory.get(&key(&third)).unwrap(), vec![0; 10_000], "nothing unverified is put");
}

#[tokio::test]
async fn a_hundred_requests_ask_the_bucket_once() {
    let (memory, bytes) = (Memory::default(), content(300_000));
    memory.plant(&key(&bytes), bytes.clone());
    let replica = Replica::on(&memory);
    let request = request(&bytes, &["a"]);
    let all = futures_util::future::join_all((0..100).map(|_| replica.get(&request))).await;
    assert!(all.iter().all(|got| *got == bytes));
    assert_eq!(memory.asked(), [format!("open {}", key(&bytes))]);
}

#[tokio::test]
async fn more_uploads_than_may_wait_are_dropped_counted_and_in_nobodys_way() {
    let memory = Memory::default();
    let (replica, uploads, tier) = Replica::without_uploads(&memory);
    for n in 0..5_u8 {
        let bytes = vec![n; 1000];
        replica.rig.script.set(&url("a"), [whole(&bytes)]);
        assert_eq!(replica.get(&request(&bytes, &["a"])).await, bytes);
    }
    replica.has_put(&[TierPut::Dropped; 3]).await;
    tokio::spawn(uploads.run(tier, replica.rig.delivery.cache().clone()));
    eventually("those that waited are there", || memory.keys().len() == 2).await;
}

#[tokio::test]
async fn a_file_that_rots_before_it_is_put_does_not_get_into_the_bucket() {
    let (memory, bytes) = (Memory::default(), content(300_000));
    let (replica, uploads, tier) = Replica::without_uploads(&memory);
    replica.rig.script.set(&url("a"), [whole(&bytes)]);
    assert_eq!(replica.get(&request(&bytes, &["a"])).await, bytes);
    fs::write(&replica.rig.blob_files()[0], vec![0; bytes.len()]).unwrap();
    tokio::spawn(uploads.run(tier, replica.rig.delivery.cache().clone()));
    replica.has_put(&[TierPut::Dropped]).await;
    assert!(memory.keys().is_empty());
}
