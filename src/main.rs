//! The `tufgate` binary.

fn main() {}
