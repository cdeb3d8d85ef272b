//! The command line: one file per subcommand. Data goes to stdout, words to stderr.

mod cache;
mod check;
mod check_config;
mod exit;
mod explain;
mod fetch;
mod key;
mod offline;
mod quickstart;
mod repo;
mod secrets;
mod serve;
mod terminal;
mod trust;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

pub use exit::{Exit, Failure};

/// A transparent, verifying, caching proxy: installers get only what TUF metadata signed.
#[derive(Debug, Parser)]
#[command(name = "tufgate", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gate until SIGTERM or SIGINT
    Serve(serve::Serve),
    /// Read and check a configuration file
    CheckConfig(check_config::CheckConfig),
    /// Sign what lock files pin, and serve it: the whole product on an embedded default
    Quickstart(quickstart::Quickstart),
    /// Tell what a configured gate would refuse of what lock files pin
    Check(check::Check),
    /// Fetch one target through the same gate as a request
    Fetch(fetch::Fetch),
    /// Show what is trusted
    Trust(trust::Trust),
    /// Tell whether a URL or path would be served, and why
    Explain(explain::Explain),
    /// The signer: make, fill and publish a TUF repository
    Repo(repo::Repo),
    /// Make and show keys
    Key(key::Key),
    /// Look into the cache and check it against signed metadata
    Cache(cache::Cache),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "TUFGATE_CONFIG")]
    config: PathBuf,
}

/// Parses the process's arguments, runs, and gives the exit code: 0 ok, 1 failed or unavailable, 2 usage or
/// configuration, 3 refused.
pub fn main() -> ExitCode {
    // clap itself ends with 2 on wrong usage and with 0 for help.
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Serve(command) => command.run(),
        Command::CheckConfig(command) => command.run(),
        Command::Quickstart(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Fetch(command) => command.run(),
        Command::Trust(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Repo(command) => command.run(),
        Command::Key(command) => command.run(),
        Command::Cache(command) => command.run(),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("tufgate: {}", terminal::harmless(&failure.to_string()));
            failure.exit.into()
        }
    }
}

/// Runs a future on a runtime of its own.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(future)
}

/// Prints data as indented JSON on stdout.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error.to_string()))?;
    print_line(&json)
}

/// Prints a line on stdout; a closed pipe ends the command quietly, as it does for other tools.
fn print_line(line: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    match writeln!(std::io::stdout(), "{}", terminal::harmless(line)) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(error.to_string())),
        _ => Ok(()),
    }
}
