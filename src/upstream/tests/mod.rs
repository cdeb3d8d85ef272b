//! The client against good and hostile servers on loopback.

mod documents;
mod files;
mod routes;

use std::{future::Future, time::Duration};

use url::Url;

use super::{Client, Environment, Origins, Settings, testserver::TestServer};
use crate::base::{ByteSize, Span};

/// Settings whose waits are short enough for tests.
fn quick() -> Settings {
    Settings {
        connect_timeout: Span::secs(2),
        read_timeout: Span::millis(300),
        rate_min: ByteSize(1000),
        rate_grace: Span::millis(200),
        retries: 0,
        retry_pause: Span::millis(5),
        retry_pause_max: Span::millis(50),
        system_roots: false,
        ..Settings::default()
    }
}

fn client(settings: &Settings) -> Client {
    Client::new(settings, &Environment::default()).unwrap()
}

fn origins(server: &TestServer) -> Origins {
    Origins::of([&server.url("/")])
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// A test that hangs fails instead.
async fn soon<T>(future: impl Future<Output = T> + Send) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it ends in time")
}
