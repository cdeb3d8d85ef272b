//! How many connections each client has, so that none of them takes the places of all others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::{client_of, lock};

/// Connections by client. Holds no more entries than there are connections.
#[derive(Debug)]
pub(super) struct Clients {
    max: usize,
    connections: Mutex<HashMap<IpAddr, usize>>,
}

impl Clients {
    /// At most `max` connections for each client.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), connections: Mutex::default() })
    }

    /// A place for one more connection, kept until it is dropped; `None` where the client has all that it may have.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let client = client_of(peer);
        let mut connections = self.connections();
        let count = connections.entry(client).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Place { client, clients: Arc::clone(self) })
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        lock(&self.connections)
    }
}

/// One connection of a client.
#[derive(Debug)]
pub(super) struct Place {
    client: IpAddr,
    clients: Arc<Clients>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.clients.connections();
        if let Some(count) = connections.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.client);
            }
        }
    }
}

/// Answers of HTTP/2 that are under way, on whichever connection. Each takes a place as a connection of HTTP/1.1 does, with
/// the same bounds: else a client had as many times more of them as it opens streams on each connection.
#[derive(Debug)]
pub(super) struct Answers {
    clients: Arc<Clients>,
    room: Arc<Semaphore>,
}

/// One answer of a client.
#[derive(Debug)]
pub(super) struct AnswerPlace {
    _place: Place,
    _permit: OwnedSemaphorePermit,
}

impl Answers {
    /// At most `max` answers, of each client at most `per_client`.
    pub(super) fn new(max: usize, per_client: usize) -> Arc<Self> {
        Arc::new(Self { clients: Clients::new(per_client), room: Arc::new(Semaphore::new(max)) })
    }

    /// A place for one more answer, kept until it is dropped; `None` where the client, or where all together have all that
    /// they may have.
    pub(super) fn enter(&self, peer: IpAddr) -> Option<AnswerPlace> {
        let place = self.clients.enter(peer)?;
        let permit = Arc::clone(&self.room).try_acquire_owned().ok()?;
        Some(AnswerPlace { _place: place, _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_that_has_all_its_connections_takes_nobody_elses_and_gets_one_back_for_each_that_ends() {
        let clients = Clients::new(2);
        let mut mine: Vec<_> = (0..2).map(|_| clients.enter(address("192.0.2.1")).unwrap()).collect();
        assert!(clients.enter(address("192.0.2.1")).is_none());
        assert!(clients.enter(address("::ffff:192.0.2.1")).is_none(), "the same address in other clothes");
        let other = clients.enter(address("192.0.2.2")).unwrap();
        mine.pop();
        mine.push(clients.enter(address("192.0.2.1")).unwrap());
        drop((mine, other));
        assert!(clients.connections().is_empty(), "who is gone is forgotten");
    }

    #[test]
    fn answers_are_bounded_for_each_client_and_in_all_and_each_gives_its_place_back() {
        let answers = Answers::new(3, 2);
        let (mine, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let mut all = vec![answers.enter(mine).unwrap(), answers.enter(mine).unwrap()];
        assert!(answers.enter(mine).is_none());
        all.push(answers.enter(other).unwrap());
        assert!(answers.enter(other).is_none(), "there are three");
        all.clear();
        assert!(answers.enter(mine).is_some() && answers.clients.connections().is_empty());
    }

    #[test]
    fn all_addresses_of_one_ipv6_network_are_one_client() {
        let clients = Clients::new(1);
        let _first = clients.enter(address("2001:db8:1:2::1")).unwrap();
        assert!(clients.enter(address("2001:db8:1:2:ffff::9")).is_none());
        assert!(clients.enter(address("2001:db8:1:3::1")).is_some());
    }
}
