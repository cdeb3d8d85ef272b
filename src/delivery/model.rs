//! The flights under a model checker: clients that board, wait and leave, in thousands of orders.
//!
//! The very file of the product is compiled here a second time, with the checker's locks and tasks in place of the
//! system's. Channels and notifications are tokio's, with a place to be interrupted before each use.

#![allow(dead_code)]

#[path = "flight.rs"]
#[allow(clippy::duplicate_mod, reason = "with other locks")]
mod flight;

/// The checker's locks and tasks.
mod sync {
    use std::sync::PoisonError;

    pub(super) use shuttle::{
        future::spawn,
        sync::{Mutex, MutexGuard, atomic::AtomicBool},
    };

    pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Here another task may come in between.
    pub(super) fn interruption() {
        AtomicBool::new(false).load(std::sync::atomic::Ordering::SeqCst);
    }

    #[derive(Debug)]
    pub(super) struct Notify(tokio::sync::Notify);

    impl Notify {
        pub(super) fn new() -> Self {
            Self(tokio::sync::Notify::new())
        }
        pub(super) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
            interruption();
            self.0.notified()
        }
        pub(super) fn notify_waiters(&self) {
            interruption();
            self.0.notify_waiters();
        }
    }

    pub(super) mod watch {
        use tokio::sync::watch;

        use super::interruption;

        #[derive(Debug)]
        pub(in super::super) struct Sender<T>(watch::Sender<T>);

        #[derive(Clone, Debug)]
        pub(in super::super) struct Receiver<T>(watch::Receiver<T>);

        pub(in super::super) fn channel<T>(first: T) -> (Sender<T>, Receiver<T>) {
            let (sender, receiver) = watch::channel(first);
            (Sender(sender), Receiver(receiver))
        }

        impl<T> Sender<T> {
            pub(in super::super) fn send_replace(&self, value: T) -> T {
                interruption();
                self.0.send_replace(value)
            }
            pub(in super::super) async fn closed(&self) {
                interruption();
                self.0.closed().await;
            }
        }

        impl<T> Drop for Sender<T> {
            fn drop(&mut self) {
                interruption();
            }
        }

        impl<T> Receiver<T> {
            pub(in super::super) fn borrow(&self) -> watch::Ref<'_, T> {
                interruption();
                self.0.borrow()
            }
            pub(in super::super) fn has_changed(&self) -> Result<bool, watch::error::RecvError> {
                interruption();
                self.0.has_changed()
            }
            pub(in super::super) async fn wait_for(
                &mut self,
                enough: impl FnMut(&T) -> bool,
            ) -> Result<watch::Ref<'_, T>, watch::error::RecvError> {
                interruption();
                self.0.wait_for(enough).await
            }
        }
    }
}

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use flight::{Bounds, Flight, Flights, Outcome};
use shuttle::{
    Config, Runner,
    future::{block_on, spawn, yield_now},
    scheduler::{PctScheduler, RandomScheduler},
};
use url::Url;

use super::{Request, error, error::DeliveryError, verdicts, verdicts::Verdicts};
use crate::{
    base::{ByteSize, Digest, Digests},
    cache::{Blob, Cache, Expected, MemoryStore, Spool, Unobserved},
    upstream::{GateChain, Origins},
};

/// Random orders, and those that the checker for few preemptions thinks up.
fn check(scenario: impl Fn() + Send + Sync + Clone + 'static) {
    Runner::new(RandomScheduler::new(4_000), Config::new()).run(scenario.clone());
    Runner::new(PctScheduler::new(3, 4_000), Config::new()).run(scenario);
}

/// A blob to succeed with.
fn blob() -> Blob {
    static BLOB: OnceLock<Blob> = OnceLock::new();
    let made = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let spool = Spool::memory_only(ByteSize::kib(1));
            let cache = Cache::over(Arc::new(MemoryStore::new(ByteSize::mib(1))), spool, Arc::new(Unobserved));
            let mut ingest = cache.ingest(&expected()).await.unwrap();
            ingest.write(vec!["bytes".into()]).await.unwrap();
            ingest.commit().await.unwrap()
        })
    };
    BLOB.get_or_init(made).clone()
}

fn expected() -> Expected {
    Expected::new(5, Digests::new([Digest::sha256(b"bytes")]).unwrap())
}

fn request(host: &str) -> Request {
    let sources = vec![Url::parse(&format!("https://{host}.example/f.whl")).unwrap()];
    Request {
        mount: "pypi".into(),
        target: "f/f.whl".into(),
        expected: expected(),
        chunks: None,
        client: None,
        allowed: Origins::of(&sources),
        sources,
        passed: GateChain::default(),
    }
}

/// The air: who flies now, and what became of all who flew.
#[derive(Default)]
struct Sky {
    flying: AtomicUsize,
    most: AtomicUsize,
    started: AtomicUsize,
    /// How many clients have heard of a failure so far.
    heard: AtomicUsize,
    landed: AtomicUsize,
}

/// In the air until dropped, however that comes.
struct InTheAir(Arc<Sky>);

impl Drop for InTheAir {
    fn drop(&mut self) {
        self.0.flying.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Sky {
    /// A fetch: the first `failures` of them fail.
    async fn fly(self: Arc<Self>, failures: usize) -> Outcome {
        let flying = self.flying.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(flying, Ordering::SeqCst);
        let number = self.started.fetch_add(1, Ordering::SeqCst);
        let _until_the_end = InTheAir(Arc::clone(&self));
        for _ in 0..2 {
            yield_now().await;
        }
        if number < failures {
            return Err(refusal());
        }
        self.landed.fetch_add(1, Ordering::SeqCst);
        Ok(blob())
    }
}

fn refusal() -> DeliveryError {
    let (target, expected) = ("f/f.whl".into(), 5);
    let source_url = (&Url::parse("https://a.example/f.whl").unwrap()).into();
    DeliveryError::Length { target, source_url, expected, actual: 6 }
}

struct Airport {
    flights: Arc<Flights>,
    verdicts: Arc<Verdicts>,
    sky: Arc<Sky>,
    failures: usize,
}

impl Airport {
    fn new(bounds: Bounds, failures: usize) -> Arc<Self> {
        let verdicts = Arc::new(Verdicts::new(Duration::from_secs(600), Duration::from_secs(600)));
        let flights = Arc::new(Flights::new(Arc::clone(&verdicts), bounds));
        Arc::new(Self { flights, verdicts, sky: Arc::default(), failures })
    }

    async fn board(&self, host: &str) -> Arc<Flight> {
        let take_off = |_| Arc::clone(&self.sky).fly(self.failures);
        self.flights.board(&request(host), take_off).await.0
    }

    /// Boards and waits for the end.
    async fn travel(&self, host: &str) -> Outcome {
        let heard_before = self.sky.heard.load(Ordering::SeqCst);
        let outcome = self.board(host).await.outcome().await;
        assert!(!matches!(outcome, Err(DeliveryError::Ended { .. })), "it ended without an answer");
        if outcome.is_err() {
            self.sky.heard.fetch_add(1, Ordering::SeqCst);
            assert_eq!(heard_before, 0, "a failure that somebody had heard of before this one asked");
        }
        outcome
    }

    /// All have landed, and the books are empty.
    async fn closes(&self) {
        while self.flights.count() > 0 {
            yield_now().await;
        }
        while self.sky.flying.load(Ordering::SeqCst) > 0 {
            yield_now().await;
        }
    }
}

const WIDE: Bounds = Bounds { per_target: 8, surviving: 4 };

#[test]
fn however_clients_come_and_go_one_fetch_runs_at_a_time_and_everybody_who_waits_gets_its_end() {
    check(|| {
        block_on(async {
            let airport = Airport::new(WIDE, 1);
            let clients: Vec<_> = (0..4)
                .map(|n| {
                    let airport = Arc::clone(&airport);
                    spawn(async move {
                        match n {
                            // One boards and leaves, one leaves in the middle, the others wait.
                            0 => drop(airport.board("a").await),
                            1 => {
                                let flight = airport.board("a").await;
                                yield_now().await;
                                drop(flight);
                            }
                            _ => drop(airport.travel("a").await),
                        }
                    })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
            airport.closes().await;
            assert_eq!(airport.sky.most.load(Ordering::SeqCst), 1, "two fetches of the same at once");
        });
    });
}

#[test]
fn who_finds_no_room_gets_in_when_another_lands_and_nobody_waits_for_ever() {
    check(|| {
        block_on(async {
            let airport = Airport::new(Bounds { per_target: 1, surviving: 1 }, 0);
            let clients: Vec<_> = ["a", "b", "c", "b"]
                .map(|host| {
                    let airport = Arc::clone(&airport);
                    spawn(async move { assert!(airport.travel(host).await.is_ok()) })
                })
                .into_iter()
                .collect();
            for client in clients {
                client.await.unwrap();
            }
            airport.closes().await;
            assert_eq!(airport.sky.most.load(Ordering::SeqCst), 1, "more than there is room for");
        });
    });
}

#[test]
fn a_fetch_that_survives_lands_though_everybody_left_and_another_ends_and_makes_room() {
    check(|| {
        block_on(async {
            let airport = Airport::new(Bounds { per_target: 2, surviving: 1 }, 0);
            drop(airport.board("a").await);
            let leaving = {
                let airport = Arc::clone(&airport);
                spawn(async move { drop(airport.board("b").await) })
            };
            // There is no room for it before one of the two has ended.
            assert!(airport.travel("c").await.is_ok());
            leaving.await.unwrap();
            airport.closes().await;
            assert!(airport.sky.landed.load(Ordering::SeqCst) >= 2, "the first one landed");
        });
    });
}

#[test]
fn bytes_that_left_before_they_were_refused_make_their_target_suspect() {
    check(|| {
        block_on(async {
            let airport = Airport::new(WIDE, 1);
            let flight = airport.board("a").await;
            flight.release_early();
            // As an early body asks before each of its bytes.
            let leaves = flight.outcome_now().is_none();
            assert!(flight.outcome().await.is_err());
            drop(flight);
            airport.closes().await;
            let suspect = airport.verdicts.is_suspect(&expected());
            assert!(suspect || !leaves, "the next one would be released early, too");
        });
    });
}
