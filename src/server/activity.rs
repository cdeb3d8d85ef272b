//! Whom a connection of HTTP/2 is waiting for: its client, or us.
//!
//! With HTTP/1.1 a silent client is a silent socket, which has time-outs of its own. On HTTP/2 the socket is alive as long as
//! pings are answered: a client could keep a connection that it asks nothing on, or open no window for its answers, for
//! ever.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::clients::AnswerPlace;
use crate::base::lock;

/// What goes on on one connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Requests whose answers have not ended.
    requests: usize,
    /// Those of them that wait for us and not for the client.
    ours: usize,
    /// When something happened last.
    since: Instant,
}

/// How a client let too much time pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// It asks for nothing.
    Idle,
    /// It takes nothing of what it asked for.
    Untaken,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { requests: 0, ours: 0, since: Instant::now() })))
    }

    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        let mut state = self.state();
        state.requests += 1;
        state.ours += 1;
        state.since = Instant::now();
        Exchange { activity: Arc::clone(self), ours: true, place: None }
    }

    /// Time begins anew.
    pub(super) fn touch(&self) {
        self.state().since = Instant::now();
    }

    /// Ends when the client has let too much time pass.
    pub(super) async fn silence(&self, idle_max: Duration, untaken_max: Duration) -> Silence {
        loop {
            let now = Instant::now();
            let (silence, deadline) = {
                let state = self.state();
                match state.requests {
                    0 => (Silence::Idle, state.since + idle_max),
                    // It will have its full time from the moment that we have done our part.
                    _ if state.ours > 0 => (Silence::Untaken, now + untaken_max),
                    _ => (Silence::Untaken, state.since + untaken_max),
                }
            };
            if deadline <= now {
                return silence;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

/// One request and its answer; over when dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Arc<Activity>,
    ours: bool,
    /// Given back at its end.
    place: Option<AnswerPlace>,
}

impl Exchange {
    /// The same, in a place among all answers.
    pub(super) fn at(mut self, place: AnswerPlace) -> Self {
        self.place = Some(place);
        self
    }

    /// The answer's body, as a part of this exchange.
    pub(super) fn with_body<B>(mut self, body: B) -> Watched<B> {
        self.is_ours(false);
        Watched { body, exchange: self }
    }

    fn is_ours(&mut self, ours: bool) {
        let mut state = self.activity.state();
        match (self.ours, ours) {
            (true, false) => state.ours -= 1,
            (false, true) => state.ours += 1,
            _ => {}
        }
        state.since = Instant::now();
        drop(state);
        self.ours = ours;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.is_ours(false);
        drop(self.place.take());
        self.activity.state().requests -= 1;
    }
}

/// A body that tells who is waited for: it is asked for the next frame once the client has room for it.
#[derive(Debug)]
pub(super) struct Watched<B> {
    body: B,
    exchange: Exchange,
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.exchange.is_ours(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt as _, Full, StreamBody};

    use super::*;

    const IDLE: Duration = Duration::from_millis(1);
    const UNTAKEN: Duration = Duration::from_millis(2);
    /// Long enough for either to be over many times.
    const LONG: Duration = Duration::from_millis(40);

    async fn silence(activity: &Activity) -> Option<Silence> {
        tokio::time::timeout(LONG, activity.silence(IDLE, UNTAKEN)).await.ok()
    }

    #[tokio::test]
    async fn a_client_that_asks_for_nothing_is_idle_from_the_last_answer_on() {
        let activity = Activity::new();
        let exchange = activity.begin();
        assert_eq!(silence(&activity).await, None, "we are at work");
        exchange.with_body(Full::new(Bytes::from("answer"))).collect().await.unwrap();
        let ended = activity.state().since;
        assert_eq!(activity.silence(IDLE, UNTAKEN).await, Silence::Idle);
        assert!(ended.elapsed() >= IDLE);
    }

    #[tokio::test]
    async fn an_answer_that_waits_for_bytes_is_ours_and_one_that_nobody_asks_on_is_the_clients() {
        let activity = Activity::new();
        let waiting = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        let mut body = activity.begin().with_body(waiting);
        assert!(body.frame().now_or_never().is_none());
        let untaken = activity.begin().with_body(Full::new(Bytes::from("answer")));
        assert_eq!(silence(&activity).await, None, "one of two waits for us");
        drop(body);
        assert_eq!(activity.silence(IDLE, UNTAKEN).await, Silence::Untaken);
        drop(untaken);
        assert_eq!(activity.silence(IDLE, UNTAKEN).await, Silence::Idle);
    }
}
