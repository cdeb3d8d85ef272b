//! The `tufgate` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    tufgate::cli::main()
}
