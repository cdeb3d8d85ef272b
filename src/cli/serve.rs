//! `tufgate serve`.

use std::net::SocketAddr;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{ConfigFile, Exit, Failure, block_on};
use crate::{app::App, base::SystemClock, config::Config, telemetry::logging};

/// Arguments of `tufgate serve`; a flag wins over the environment, the environment over the file.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    config: ConfigFile,
    /// Address of the public listener, in place of server.listen
    #[arg(long, value_name = "ADDR", env = "TUFGATE_LISTEN")]
    listen: Option<SocketAddr>,
    /// Address of the admin listener, in place of admin.listen
    #[arg(long, value_name = "ADDR", env = "TUFGATE_ADMIN_LISTEN")]
    admin_listen: Option<SocketAddr>,
    /// Log level or filter, in place of log.level
    #[arg(long, value_name = "LEVEL", env = "TUFGATE_LOG")]
    log_level: Option<String>,
}

impl Serve {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let overrides = crate::config::Overrides {
            listen: self.listen,
            admin_listen: self.admin_listen,
            log_level: self.log_level,
        };
        let config = Config::load_with(&self.config.config, &overrides)?;
        logging::install(&config.log).map_err(|error| Failure::usage(error.to_string()))?;
        block_on(serve(config, CancellationToken::new()))
    }
}

/// Serves until a signal or until `shutdown`.
async fn serve(config: Config, shutdown: CancellationToken) -> Result<Exit, Failure> {
    serve_with(config, shutdown, |_| ()).await
}

/// Like [`serve`]; `started` is told once both listeners accept.
pub(super) async fn serve_with(
    config: Config,
    shutdown: CancellationToken,
    started: impl FnOnce(&App),
) -> Result<Exit, Failure> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    stop_on_signals(&shutdown)?;
    survive_file_size_limits()?;
    let json = config.log.format == logging::Format::Json;
    let app = App::start(config, SystemClock::shared(), shutdown).await.map_err(|error| {
        if error.is_usage() { Failure::usage(error.to_string()) } else { Failure::of(error.fault(), error) }
    })?;
    announce(&app, json);
    started(&app);
    app.run().await;
    Ok(Exit::Ok)
}

/// Says on stderr where it listens, as a line of the log where that is JSON, and tells a service manager that asked for
/// it.
fn announce(app: &App, json: bool) {
    let listening = [("listening on", Some(app.public_url())), ("admin on", app.admin_url())];
    for (what, url) in listening.into_iter().filter_map(|(what, url)| Some((what, url?))) {
        if json {
            tracing::info!(url, "{what}");
        } else {
            eprintln!("tufgate: {what} {url}");
        }
    }
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "no service manager to notify");
    }
}

/// SIGTERM and SIGINT end the process in good order.
pub(super) fn stop_on_signals(shutdown: &CancellationToken) -> Result<(), Failure> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")))?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            signals.recv().await;
            shutdown.cancel();
        });
    }
    Ok(())
}

/// Where files may not grow beyond a limit (`ulimit -f`, `LimitFSIZE`), a write that would is an error like that of a full
/// disk; the system would end the process instead if nobody listened to its signal.
pub(super) fn survive_file_size_limits() -> Result<(), Failure> {
    let kind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // Listening once is enough: the handler stays.
    let listening = signal(kind).map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")))?;
    drop(listening);
    Ok(())
}
