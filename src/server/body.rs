//! The body of an answer, and the account of what left.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};

/// Why a body ended before its length. The connection is then reset: a client never sees a clean end.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Is told, once, how many bytes left and whether that was all of it.
type Report = Box<dyn FnOnce(u64, bool) + Send>;

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
    Pieces(UnsyncBoxBody<Bytes, BodyError>),
}

struct Account {
    sent: u64,
    /// Bytes that make the answer whole.
    expected: u64,
    ended: bool,
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
pub fn pieces(pieces: impl HttpBody<Data = Bytes, Error = BodyError> + Send + 'static) -> Body {
    Body { bytes: Source::Pieces(pieces.boxed_unsync()), account: None }
}

impl Body {
    /// `expected` is the Content-Length; `report` gets (bytes sent, finished) when the body is done with.
    #[must_use]
    pub fn accounted(mut self, expected: u64, report: impl FnOnce(u64, bool) + Send + 'static) -> Self {
        self.account = Some(Account { sent: 0, expected, ended: false, report: Box::new(report) });
        self
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
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
                Some(Err(_)) => {}
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
        if let Some(Account { sent, expected, ended, report }) = self.account.take() {
            report(sent, ended || sent == expected);
        }
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
            let body = full("abc").accounted(3, move |sent, finished| {
                *report.lock().unwrap() = Some((sent, finished));
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
