//! Loop detection for gates that read from gates: each names itself in `Via` (RFC 9110 §7.6.3).

use std::fmt;

use http::{HeaderMap, HeaderValue, header};

/// What the names of all gates begin with.
const PREFIX: &str = "tufgate-";

/// Gates that a request may have passed; a longer chain is a loop or an attack.
const GATES_MAX: usize = 8;

/// The gates that a request has passed before this one, as its `Via` names them, in order.
///
/// Everything else in `Via` is dropped: it is the client's to choose, and must not get into what is sent upstream for
/// others, too. The chain itself can be made up as well; so requests with different chains share no fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GateChain(Vec<u64>);

impl GateChain {
    /// Reads every `Via` of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        let entries = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
        let gates = entries.flat_map(|value| value.split(',')).filter_map(gate_of);
        // One more than may be is enough to know.
        Self(gates.take(GATES_MAX + 1).collect())
    }

    /// Whether the request has passed more gates than are let to stand in a row.
    pub fn is_too_long(&self) -> bool {
        self.0.len() > GATES_MAX
    }
}

impl fmt::Display for GateChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, gate) in self.0.iter().enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}1.1 {PREFIX}{gate:016x}")?;
        }
        Ok(())
    }
}

/// The gate that an entry names, where it is exactly what a gate writes.
fn gate_of(entry: &str) -> Option<u64> {
    let id = entry.trim().strip_prefix("1.1 ")?.strip_prefix(PREFIX)?;
    let well_formed = id.len() == 16 && id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    well_formed.then(|| u64::from_str_radix(id, 16).ok()).flatten()
}

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
        Self(format!("{PREFIX}{}", hex::encode(bytes)))
    }

    /// Whether a request with these headers has passed this gate before: answering it would go round for ever.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let entries = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
        entries.flat_map(|value| value.split(',')).any(|entry| entry.split_ascii_whitespace().nth(1) == Some(&self.0))
    }

    /// The `Via` of a request that this gate sends: the gates before, and itself. `None` after too many gates.
    pub(super) fn via(&self, passed: &GateChain) -> Option<HeaderValue> {
        if passed.is_too_long() {
            return None;
        }
        let comma = if passed.0.is_empty() { "" } else { ", " };
        HeaderValue::from_str(&format!("{passed}{comma}1.1 {self}")).ok()
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

    fn headers(via: &[&str]) -> HeaderMap {
        via.iter().map(|via| (header::VIA, HeaderValue::from_str(via).unwrap())).collect()
    }

    #[test]
    fn a_gate_finds_itself_behind_another_and_no_other_gate_does() {
        let (first, second) = (InstanceId::draw(), InstanceId::draw());
        let one = first.via(&GateChain::default()).unwrap();
        let two = second.via(&GateChain::of(&headers(&[one.to_str().unwrap()]))).unwrap();
        let headers = headers(&[two.to_str().unwrap()]);
        assert!(first.is_in(&headers) && second.is_in(&headers));
        assert!(!InstanceId::draw().is_in(&headers));
    }

    #[test]
    fn a_loop_is_found_through_another_gate_and_an_ordinary_proxy() {
        let (first, second) = (InstanceId::draw(), InstanceId::draw());
        let sent = format!("{}, 1.1 squid", first.via(&GateChain::default()).unwrap().to_str().unwrap());
        let back = second.via(&GateChain::of(&headers(&[&sent]))).unwrap();
        assert!(first.is_in(&headers(&[back.to_str().unwrap(), "1.0 fred (a proxy)"])));
    }

    #[test]
    fn what_is_no_gate_in_a_clients_via_is_not_sent_on() {
        let long = "x".repeat(1500);
        for via in [&long, "1.1 tufgate-0123", "1.1 tufgate-0123456789abcdeg", "1.1 tufgate-0123456789ABCDEF"] {
            assert_eq!(GateChain::of(&headers(&[via])), GateChain::default(), "{via}");
        }
        let passed = GateChain::of(&headers(&[&long, "1.1 squid, 1.1 tufgate-0123456789abcdef , 2 x", "1.1 y"]));
        let id = InstanceId::draw();
        assert_eq!(id.via(&passed).unwrap(), format!("1.1 tufgate-0123456789abcdef, 1.1 {id}"));
    }

    #[test]
    fn a_chain_that_grows_without_end_is_not_sent_on() {
        let chain = |gates: usize| GateChain::of(&headers(&[&"1.1 tufgate-0123456789abcdef, ".repeat(gates)]));
        let id = InstanceId::draw();
        assert!(!chain(GATES_MAX).is_too_long() && id.via(&chain(GATES_MAX)).is_some());
        assert!(chain(10_000).is_too_long() && id.via(&chain(10_000)).is_none());
        assert_eq!(chain(10_000), chain(GATES_MAX + 1));
    }
}
