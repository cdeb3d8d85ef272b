//! The body of an answer, and the account of what left.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};

/// Why a body ended before its length. The connection is then reset: a client never sees a clean end.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Passes a body on and tells, once, how many bytes left and whether that was all of it.
pub struct Accounted {
    inner: Body,
    sent: u64,
    /// Bytes that make the answer whole.
    expected: u64,
    ended: bool,
    report: Option<Box<dyn FnOnce(u64, bool) + Send>>,
}

impl Accounted {
    /// `expected` is the Content-Length; `report` gets (bytes sent, finished) when the body is done with.
    pub fn wrap(inner: Body, expected: u64, report: impl FnOnce(u64, bool) + Send + 'static) -> Body {
        Self { inner, sent: 0, expected, ended: false, report: Some(Box::new(report)) }.boxed_unsync()
    }
}

impl HttpBody for Accounted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => this.sent += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => {}
            None => this.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Accounted {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            report(self.sent, self.ended || self.sent == self.expected);
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
            let body = Accounted::wrap(full("abc"), 3, move |sent, finished| {
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
