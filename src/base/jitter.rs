//! Randomness for pauses, so that many processes do not come back at the same moment.

/// A byte for jitter. Not for secrets.
pub fn draw() -> u8 {
    let mut byte = [0];
    // Without randomness there is no jitter, which is no reason to fail.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}
