//! The body of an answer, and the account of what left.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};

use crate::delivery::DeliveryError;

/// How a body ended.
#[derive(Clone, Debug)]
pub enum Ending {
    /// All of it left.
    Whole,
    /// It was given up before: the client is gone.
    Left,
    /// Its bytes failed. The connection is then reset: a client never sees a clean end.
    Failed(DeliveryError),
}

/// Is told, once, how many bytes left and how it ended.
type Report = Box<dyn FnOnce(u64, Ending) + Send>;

/// The body of every answer.
#[derive(Default)]
pub struct Body {
    bytes: Source,
    account: Option<Account>,
}

/// Where the bytes of a body come from.
#[derive(Default)]
enum Source {
    /// Nothing more comes.
    #[default]
    Empty,
    /// All of it is there.
    Whole(Bytes),
    /// It comes in pieces.
    Pieces(UnsyncBoxBody<Bytes, DeliveryError>),
}

struct Account {
    sent: u64,
    /// Bytes that make the answer whole.
    expected: u64,
    ended: bool,
    failed: Option<DeliveryError>,
    report: Report,
}

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    let bytes = bytes.into();
    Body { bytes: if bytes.is_empty() { Source::Empty } else { Source::Whole(bytes) }, account: None }
}

/// No body.
pub fn empty() -> Body {
    Body::default()
}

/// A body in pieces; an error among them breaks the answer off.
pub fn pieces(pieces: impl HttpBody<Data = Bytes, Error = DeliveryError> + Send + 'static) -> Body {
    Body { bytes: Source::Pieces(pieces.boxed_unsync()), account: None }
}

impl Body {
    /// `expected` is the Content-Length; `report` gets the bytes sent and the ending when the body is done with.
    #[must_use]
    pub fn accounted(mut self, expected: u64, report: impl FnOnce(u64, Ending) + Send + 'static) -> Self {
        self.account = Some(Account { sent: 0, expected, ended: false, failed: None, report: Box::new(report) });
        self
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = DeliveryError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DeliveryError>>> {
        let this = self.get_mut();
        let frame = match &mut this.bytes {
            Source::Empty => None,
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.bytes = Source::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Source::Pieces(pieces) => ready!(Pin::new(pieces).poll_frame(cx)),
        };
        if let Some(account) = &mut this.account {
            match &frame {
                Some(Ok(frame)) => account.sent += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(error)) => account.failed = Some(error.clone()),
                None => account.ended = true,
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.bytes {
            Source::Empty => true,
            Source::Whole(_) => false,
            Source::Pieces(pieces) => pieces.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bytes {
            Source::Empty => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Pieces(pieces) => pieces.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let Some(Account { sent, expected, ended, failed, report }) = self.account.take() else { return };
        let ending = match failed {
            Some(error) => Ending::Failed(error),
            None if ended || sent == expected => Ending::Whole,
            None => Ending::Left,
        };
        report(sent, ending);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn a_body_that_is_dropped_half_way_is_reported_as_broken_off() {
        let seen = Arc::new(Mutex::new(None));
        for (read, expected) in [(true, (3, true)), (false, (0, false))] {
            let report = Arc::clone(&seen);
            let body = full("abc").accounted(3, move |sent, ending| {
                *report.lock().unwrap() = Some((sent, matches!(ending, Ending::Whole)));
            });
            if read {
                assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
            } else {
                drop(body);
            }
            assert_eq!(seen.lock().unwrap().take(), Some(expected));
        }
    }
}
