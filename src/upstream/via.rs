//! Loop detection for gates that read from gates: each names itself in `Via` (RFC 9110 §7.6.3).

use std::fmt;

use http::{HeaderMap, HeaderValue, header};

/// Most bytes of a received `Via` that are sent on; a longer chain is a loop or an attack.
pub(super) const VIA_BYTES_MAX: usize = 2048;

/// The name of one running gate in `Via`: `tufgate-` and 16 hexadecimal digits drawn at start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstanceId(String);

impl InstanceId {
    /// A fresh one. Unique among the gates of a chain; where the system has no randomness, the process id must do.
    pub(super) fn draw() -> Self {
        let mut bytes = [0; 8];
        if getrandom::fill(&mut bytes).is_err() {
            bytes = u64::from(std::process::id()).to_be_bytes();
        }
        Self(format!("tufgate-{}", hex::encode(bytes)))
    }

    /// Whether a request with these headers has passed this gate before: answering it would go round for ever.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let entries = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
        entries.flat_map(|value| value.split(',')).any(|entry| entry.split_ascii_whitespace().nth(1) == Some(&self.0))
    }

    /// The `Via` of a request that this gate sends: what it received, and itself.
    pub(super) fn via(&self, received: Option<&str>) -> Option<HeaderValue> {
        let own = format!("1.1 {}", self.0);
        let value = match received {
            Some(received) if !received.is_empty() => format!("{received}, {own}"),
            _ => own,
        };
        (value.len() <= VIA_BYTES_MAX).then(|| HeaderValue::from_str(&value).ok()).flatten()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_finds_itself_behind_another_and_no_other_gate_does() {
        let (first, second) = (InstanceId::draw(), InstanceId::draw());
        let one = first.via(None).unwrap();
        let two = second.via(Some(one.to_str().unwrap())).unwrap();
        let headers = HeaderMap::from_iter([(header::VIA, two)]);
        assert!(first.is_in(&headers) && second.is_in(&headers));
        assert!(!InstanceId::draw().is_in(&headers));
    }

    #[test]
    fn a_chain_that_grows_without_end_is_not_sent_on() {
        let id = InstanceId::draw();
        assert!(id.via(Some(&"1.1 x, ".repeat(1000))).is_none());
    }
}
