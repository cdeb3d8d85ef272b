//! Who may fetch now: a bound on fetches at once that no client and no upstream can use up alone.
//!
//! A client has a turn while it has fewer fetches than are free, an upstream while it has fewer than four times as many
//! as are free (the dynamic thresholds of shared-memory switches, by Choudhury and Hahne). So one client alone takes
//! half of them, two a third each, and there is always room for who comes anew; and an upstream that answers nobody
//! leaves a fifth to the others. Who waits goes in the order of coming, among those who have a turn.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::oneshot;

use super::Request;
use crate::base::{client_of, lock};

/// How many times the free fetches an upstream may have.
const UPSTREAM_SHARE: usize = 4;

/// On whose behalf, and of which upstream, something is fetched. Who shares a fetch that another began shares its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Party {
    /// `None`: the gate itself.
    client: Option<IpAddr>,
    upstream: Option<String>,
}

impl Party {
    pub(super) fn of(request: &Request) -> Self {
        let upstream = request.sources.first().and_then(|source| source.host_str()).map(str::to_owned);
        Self { client: request.client.map(client_of), upstream }
    }
}

/// The bound. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Admission(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    limit: usize,
    taken: usize,
    of_client: HashMap<Option<IpAddr>, usize>,
    of_upstream: HashMap<Option<String>, usize>,
    waiting: VecDeque<(Party, oneshot::Sender<Permit>)>,
}

/// A fetch that is under way; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Admission,
    party: Option<Party>,
}

impl Admission {
    /// At most `limit` at once.
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            limit: limit.max(1),
            taken: 0,
            of_client: HashMap::new(),
            of_upstream: HashMap::new(),
            waiting: VecDeque::new(),
        })))
    }

    /// Waits for a turn. Dropping the future gives it up.
    pub(super) async fn admit(&self, party: Party) -> Permit {
        loop {
            let turn = {
                let mut state = self.lock();
                // Nobody who waits and has a turn is overtaken: each release has let all of those in.
                if state.has_turn(&party) {
                    return self.take(&mut state, party);
                }
                let (tell, turn) = oneshot::channel();
                state.waiting.push_back((party.clone(), tell));
                turn
            };
            if let Ok(permit) = turn.await {
                return permit;
            }
        }
    }

    fn take(&self, state: &mut State, party: Party) -> Permit {
        state.taken += 1;
        *state.of_client.entry(party.client).or_default() += 1;
        *state.of_upstream.entry(party.upstream.clone()).or_default() += 1;
        Permit { admission: self.clone(), party: Some(party) }
    }

    fn release(&self, party: &Party) {
        let mut given_up = Vec::new();
        let mut state = self.lock();
        state.taken -= 1;
        lower(&mut state.of_client, &party.client);
        lower(&mut state.of_upstream, &party.upstream);
        while let Some(next) = state.waiting.iter().position(|(party, _)| state.has_turn(party))
            && let Some((party, tell)) = state.waiting.remove(next)
        {
            if tell.is_closed() {
                continue;
            }
            let permit = self.take(&mut state, party);
            // One that left in this moment: its permit is given back outside of the lock.
            given_up.extend(tell.send(permit).err());
        }
        drop(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl State {
    fn has_turn(&self, party: &Party) -> bool {
        let free = self.limit - self.taken;
        let client = self.of_client.get(&party.client).copied().unwrap_or(0);
        let upstream = self.of_upstream.get(&party.upstream).copied().unwrap_or(0);
        client < free && upstream < free.saturating_mul(UPSTREAM_SHARE)
    }
}

fn lower<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(party) = self.party.take() {
            self.admission.release(&party);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    fn party(client: u8, upstream: u8) -> Party {
        Party { client: Some([10, 0, 0, client].into()), upstream: Some(format!("u{upstream}")) }
    }

    fn now(admission: &Admission, party: Party) -> Option<Permit> {
        admission.admit(party).now_or_never()
    }

    #[test]
    fn one_client_takes_half_and_a_second_one_is_not_kept_waiting() {
        let admission = Admission::new(128);
        let first: Vec<Permit> = (0..200).map_while(|n| now(&admission, party(1, n))).collect();
        assert_eq!(first.len(), 64);
        let second: Vec<Permit> = (0..200).map_while(|n| now(&admission, party(2, n))).collect();
        assert_eq!(second.len(), 32);
        assert!(now(&admission, party(3, 0)).is_some());
    }

    #[test]
    fn an_upstream_that_answers_nobody_leaves_room_for_another() {
        let admission = Admission::new(128);
        let stuck: Vec<Permit> = (0..200).map_while(|client| now(&admission, party(client, 1))).collect();
        assert_eq!(stuck.len(), 103);
        assert!(now(&admission, party(0, 2)).is_some());
    }

    #[test]
    fn a_bound_of_one_lets_one_in() {
        let admission = Admission::new(0);
        let only = now(&admission, party(1, 1)).unwrap();
        assert!(now(&admission, party(2, 2)).is_none());
        drop(only);
        assert!(now(&admission, party(2, 2)).is_some());
    }

    #[tokio::test]
    async fn who_waits_gets_its_turn_in_order_and_who_has_left_loses_nothing() {
        let admission = Admission::new(2);
        let first = now(&admission, party(1, 1)).unwrap();
        let mut second = Box::pin(admission.admit(party(1, 1)));
        assert!(second.as_mut().now_or_never().is_none(), "half of two");
        let mut left = Box::pin(admission.admit(party(1, 1)));
        assert!(left.as_mut().now_or_never().is_none());
        drop(left);
        let other = now(&admission, party(2, 2)).unwrap();
        drop(first);
        let second = second.await;
        assert!(now(&admission, party(3, 3)).is_none());
        drop((second, other));
        assert!(now(&admission, party(3, 3)).is_some());
        let state = admission.lock();
        assert_eq!((state.taken, state.of_client.len(), state.of_upstream.len(), state.waiting.len()), (0, 0, 0, 0));
    }

    #[test]
    fn addresses_of_one_host_are_one_client() {
        let of = |text: &str| client_of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_the_bound_holds_and_everybody_who_stays_gets_in(
            limit in 1..20_usize,
            events in proptest::collection::vec((0..4_u8, 0..3_u8, any::<bool>()), 1..120),
        ) {
            let admission = Admission::new(limit);
            let mut waiting = Vec::new();
            let mut inside: VecDeque<Permit> = VecDeque::new();
            let settle = |waiting: &mut Vec<futures_util::future::BoxFuture<'static, Permit>>, inside: &mut VecDeque<Permit>| {
                waiting.retain_mut(|turn| match turn.now_or_never() {
                    Some(permit) => { inside.push_back(permit); false }
                    None => true,
                });
            };
            for (client, upstream, leaves) in events {
                if leaves && !inside.is_empty() {
                    inside.pop_front();
                } else {
                    let (admission, party) = (admission.clone(), party(client, upstream));
                    waiting.push(async move { admission.admit(party).await }.boxed());
                }
                settle(&mut waiting, &mut inside);
                prop_assert!(inside.len() <= limit);
                prop_assert_eq!(admission.lock().taken, inside.len());
            }
            while let Some(permit) = inside.pop_front() {
                drop(permit);
                settle(&mut waiting, &mut inside);
            }
            prop_assert!(waiting.is_empty(), "{} wait for ever", waiting.len());
        }
    }
}
