//! Connections for object storage: the same TLS, proxies and time-outs as for every upstream.
//!
//! What is sent over them, and signed, is `object_store`'s. It brings neither TLS nor a pool of its own.

use std::{fmt, sync::Arc, time::Instant};

use async_trait::async_trait;
use http::{Method, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::legacy::{Client as Pool, Error as PoolError};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};

use super::{
    Client, Environment, Observer, Outcome, Settings, UpstreamError,
    client::{AGENT, pool},
    connect::{Connector, Proxies},
};

/// Most bytes of an answer that is not a file: an error, or what became of a put.
const ANSWER_MAX: usize = 1 << 20;

/// A pool of connections to object storage. Cheap to clone.
#[derive(Clone)]
pub struct ObjectTransport {
    pool: Pool<Connector, HttpRequestBody>,
    proxies: Proxies,
    observer: Option<Arc<dyn Observer>>,
}

impl Client {
    /// Connections for object storage with these settings of upstreams. Opens none.
    ///
    /// # Errors
    /// Like [`Client::new`].
    pub fn object_transport(
        settings: &Settings,
        environment: &Environment,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<ObjectTransport, UpstreamError> {
        let proxies = Proxies::new(settings, environment)?;
        let connector = Connector::new(settings, proxies.clone())?;
        Ok(ObjectTransport { pool: pool(settings, connector), proxies, observer })
    }
}

impl fmt::Debug for ObjectTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectTransport")
    }
}

impl HttpConnector for ObjectTransport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for ObjectTransport {
    /// Whoever asks bounds the time.
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(value) = self.proxies.authorization(request.uri()) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, value);
        }
        request.headers_mut().insert(header::USER_AGENT, AGENT);
        let host = request.uri().authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        let is_file = request.method() == Method::GET;
        let started = Instant::now();
        let result = self.pool.request(request).await;
        if let Some(observer) = &self.observer {
            let outcome = match &result {
                Ok(response) => Outcome::Status(response.status()),
                Err(error) if error.is_connect() => Outcome::Failed("connect"),
                Err(_) => Outcome::Failed("transfer"),
            };
            observer.exchanged(&host, outcome, started.elapsed());
        }
        let (parts, body) = result.map_err(of_pool)?.into_parts();
        let body = if is_file && parts.status.is_success() {
            HttpResponseBody::new(body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)))
        } else {
            let whole = Limited::new(body, ANSWER_MAX).collect().await;
            let whole = whole.map_err(|error| HttpError::new_boxed(HttpErrorKind::Interrupted, error))?;
            HttpResponseBody::from(whole.to_bytes())
        };
        Ok(HttpResponse::from_parts(parts, body))
    }
}

fn of_pool(error: PoolError) -> HttpError {
    // Either may have reached the storage only where the request was on its way.
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
    HttpError::new(kind, error)
}
