//! The books under a model checker: what many threads do at once, in thousands of orders.
//!
//! The very files of the product are compiled here a second time, with the checker's locks in place of the system's.

#![allow(dead_code)]

#[path = "books.rs"]
#[allow(clippy::duplicate_mod, reason = "with other locks")]
mod books;
#[path = "ledger.rs"]
#[allow(clippy::duplicate_mod, reason = "with other locks")]
mod ledger;

/// The checker's locks.
mod sync {
    use std::{
        sync::{PoisonError, TryLockError},
        time::Duration,
    };

    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};

    pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn try_lock<T: ?Sized>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        match mutex.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn wait<'g, T>(condvar: &Condvar, guard: MutexGuard<'g, T>, _: Duration) -> MutexGuard<'g, T> {
        condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }
}

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use books::{Books, Bounds, Shelf};
use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
    thread,
};
use sync::{Mutex, lock};

use crate::{
    base::Digest,
    cache::{CacheError, Unobserved, blob::BlobId},
};

const BLOCK: u64 = 4096;

/// Room for three files of two blocks.
const LIMIT: u64 = 6 * BLOCK;

/// A disk: what lies on it, and what is being written to it.
#[derive(Default)]
struct Disk(Mutex<Content>);

#[derive(Default)]
struct Content {
    files: BTreeMap<BlobId, u64>,
    written: u64,
}

impl Content {
    fn is_within_bounds(&self) {
        let held = self.files.values().sum::<u64>() + self.written;
        assert!(held <= LIMIT + 2 * BLOCK, "{held} bytes on a disk with {LIMIT} to use and one file more");
    }
}

impl Shelf for Disk {
    fn remove(&self, id: &BlobId) -> io::Result<bool> {
        Ok(lock(&self.0).files.remove(id).is_some())
    }
    fn free_space(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    fn place(&self) -> PathBuf {
        "disk".into()
    }
}

type Shared = Arc<Books<Disk>>;

fn id(n: u8) -> BlobId {
    Digest::sha256(&[n]).into()
}

fn books() -> Shared {
    let bounds = Bounds { size_max: LIMIT, free_space_min: 0 };
    Arc::new(Books::new(Disk::default(), bounds, Arc::new(Unobserved)))
}

/// As [`super::fill`] does it.
fn fill(books: &Shared, n: u8, blocks: u64) {
    let length = blocks * BLOCK;
    let mut reservation = match books.reserve(length) {
        Ok(reservation) => reservation,
        // Passed through.
        Err(CacheError::Full { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    {
        let mut disk = lock(&books.shelf.0);
        disk.written += length;
        disk.is_within_bounds();
    }
    reservation.wrote(length);
    let _turn = lock(books.turn(&id(n)));
    {
        let mut disk = lock(&books.shelf.0);
        disk.written -= length;
        disk.files.insert(id(n), length);
        disk.is_within_bounds();
    }
    reservation.settle(&id(n), length, None);
}

/// As [`super::DiskStore::remove`] does it.
fn remove(books: &Shared, n: u8) {
    let _turn = lock(books.turn(&id(n)));
    books.shelf.remove(&id(n)).unwrap();
    books.ledger().remove(&id(n));
}

/// As [`super::look`] does it where nothing lies at a blob's place.
fn miss(books: &Shared, n: u8) {
    if lock(&books.shelf.0).files.contains_key(&id(n)) || books.ledger().length(&id(n)).is_none() {
        return;
    }
    let _turn = lock(books.turn(&id(n)));
    if !lock(&books.shelf.0).files.contains_key(&id(n)) {
        books.ledger().remove(&id(n));
    }
}

/// What the books say is what lies there, and no promise is open.
fn agree(books: &Shared) {
    let disk = lock(&books.shelf.0);
    let ledger = books.ledger();
    for (id, length) in &disk.files {
        assert_eq!(ledger.length(id), Some(*length), "on the disk, and not in the books");
    }
    assert_eq!(ledger.blobs(), disk.files.len() as u64, "in the books, and not on the disk");
    assert_eq!(ledger.charged(), disk.files.values().sum::<u64>());
    assert_eq!((ledger.reserved(), ledger.unwritten(), disk.written), (0, 0, 0));
    assert!(ledger.charged() <= LIMIT);
}

fn run_at_once(threads: Vec<Box<dyn FnOnce(Shared) + Send>>, books: &Shared) {
    let threads: Vec<_> = threads
        .into_iter()
        .map(|run| {
            let books = Arc::clone(books);
            thread::spawn(move || run(books))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// In some thousands of orders, chosen in two ways.
fn in_many_orders(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    const ORDERS: usize = 1_500;
    let mut config = Config::new();
    // What is compiled without optimisation needs more than the checker's default.
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(ORDERS), config.clone()).run(scenario);
    Runner::new(PctScheduler::new(4, ORDERS), config).run(scenario);
}

#[test]
fn fills_evictions_removals_and_misses_at_once_leave_books_that_agree_with_the_disk() {
    in_many_orders(|| {
        let books = books();
        books.complete();
        run_at_once(
            vec![
                Box::new(|books| (0..3).for_each(|n| fill(&books, n, 2))),
                Box::new(|books| (1..5).for_each(|n| fill(&books, n, 2))),
                Box::new(|books| {
                    remove(&books, 1);
                    fill(&books, 2, 2);
                    remove(&books, 0);
                }),
                Box::new(|books| (0..3).for_each(|n| miss(&books, n))),
            ],
            &books,
        );
        agree(&books);
    });
}

#[test]
fn what_is_read_stays_while_it_is_read_and_everything_can_go_afterwards() {
    in_many_orders(|| {
        let books = books();
        books.complete();
        fill(&books, 0, 2);
        let pin = books.pin(&id(0)).unwrap();
        let reading = Arc::clone(&books);
        let reader = thread::spawn(move || {
            for _ in 0..3 {
                assert!(lock(&reading.shelf.0).files.contains_key(&id(0)), "evicted while it was read");
                thread::yield_now();
            }
            drop(pin);
        });
        run_at_once(
            vec![
                Box::new(|books| (1..4).for_each(|n| fill(&books, n, 2))),
                Box::new(|books| (4..6).for_each(|n| fill(&books, n, 2))),
            ],
            &books,
        );
        reader.join().unwrap();
        fill(&books, 9, LIMIT / BLOCK);
        assert_eq!(books.ledger().blobs(), 1, "a file as large as the cache has room when nobody reads");
        agree(&books);
    });
}

#[test]
fn fills_that_come_before_the_folder_has_been_read_wait_for_it_and_find_it_full() {
    in_many_orders(|| {
        let books = books();
        lock(&books.shelf.0).files.extend((0..3).map(|n| (id(n), 2 * BLOCK)));
        run_at_once(
            vec![
                Box::new(|books| {
                    let found: Vec<_> = (0..3).filter_map(|n| Some((ledger::Name::of(&id(n))?, 2 * BLOCK))).collect();
                    found.into_iter().for_each(|found| books.ledger().settle([found]));
                    books.complete();
                }),
                Box::new(|books| fill(&books, 7, 2)),
                Box::new(|books| remove(&books, 1)),
            ],
            &books,
        );
        agree(&books);
    });
}
