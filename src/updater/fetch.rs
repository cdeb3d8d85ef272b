//! Metadata files from mirrors.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{StatusCode, header};
use url::Url;

use super::{Repository, UpdaterError};
use crate::{
    base::Fault,
    tuf::{MetaRequest, TufError},
    upstream::{Document, DocumentRequest, UpstreamError},
};

/// What one mirror said.
pub(super) enum Answer {
    /// A file, unverified.
    File(Bytes),
    /// That there is no such file.
    Absent(UpdaterError),
    /// Nothing that counts.
    Fault(UpdaterError),
}

impl Repository {
    /// Asks every mirror for a file, all at once. The answers are in the mirrors' order.
    pub(super) async fn ask_all(&self, request: &MetaRequest) -> Vec<Answer> {
        join_all(self.mirrors.iter().map(|mirror| self.ask(mirror, request))).await
    }

    /// Takes the first file that `accept` takes, asking the mirrors in turn, beginning with the `first`.
    ///
    /// # Errors
    /// Of several, a refusal is the one that is told.
    pub(super) async fn first_accepted<T>(
        &self,
        request: &MetaRequest,
        first: usize,
        accept: impl Fn(Bytes) -> Result<T, TufError>,
    ) -> Result<T, UpdaterError> {
        let mut errors = Vec::new();
        for mirror in self.mirrors.iter().cycle().skip(first).take(self.mirrors.len()) {
            let error = match self.ask(mirror, request).await {
                Answer::File(bytes) => match accept(bytes) {
                    Ok(accepted) => return Ok(accepted),
                    Err(source) => self.refuse(source),
                },
                Answer::Absent(error) | Answer::Fault(error) => error,
            };
            errors.push(error);
        }
        Err(self.worst(errors))
    }

    /// Counts a refusal and names the repository.
    pub(super) fn refuse(&self, source: TufError) -> UpdaterError {
        let error = self.tuf(source);
        if error.is_refusal() {
            self.observer.verification_failed(&self.settings.name, error.reason());
        }
        error
    }

    /// The error that tells most: a refusal if there is one, else that of the first mirror.
    pub(super) fn worst(&self, errors: Vec<UpdaterError>) -> UpdaterError {
        let refusal = errors.iter().position(UpdaterError::is_refusal).unwrap_or(0);
        let interrupted = || UpdaterError::Interrupted { repository: self.settings.name.clone() };
        errors.into_iter().nth(refusal).unwrap_or_else(interrupted)
    }

    async fn ask(&self, mirror: &Url, request: &MetaRequest) -> Answer {
        let url = match mirror.join(&request.file_name) {
            Ok(url) => url,
            Err(error) => return Answer::Fault(self.bad_url(&error)),
        };
        let request_document = DocumentRequest {
            accept: Some("application/json, */*;q=0.1"),
            limit: request.limit,
            deadline: self.settings.metadata_deadline.duration(),
            ..DocumentRequest::new(&url, &self.origins)
        };
        match self.client.document(&request_document).await.and_then(not_html) {
            Ok(document) => Answer::File(document.body),
            Err(UpstreamError::TooLarge { .. }) => Answer::Fault(self.too_large(request)),
            Err(error) if self.says_absent(&error) => Answer::Absent(self.upstream(error)),
            Err(error) => Answer::Fault(self.upstream(error)),
        }
    }

    fn says_absent(&self, error: &UpstreamError) -> bool {
        match error {
            // "No newer root" is exactly 404: 410 and others are faults (§5.3.3).
            UpstreamError::NotFound { status, .. } => *status == StatusCode::NOT_FOUND,
            UpstreamError::Status { status, .. } => {
                self.settings.not_found_status_403 && *status == StatusCode::FORBIDDEN
            }
            _ => false,
        }
    }

    fn too_large(&self, request: &MetaRequest) -> UpdaterError {
        let (role, limit) = (request.role.clone(), request.limit);
        if let Some(expected) = request.length {
            return self.refuse(TufError::Length { role, expected, actual: expected.saturating_add(1) });
        }
        self.observer.verification_failed(&self.settings.name, "too_large");
        UpdaterError::TooLarge { repository: self.settings.name.clone(), role, limit }
    }

    pub(super) fn upstream(&self, source: UpstreamError) -> UpdaterError {
        if source.fault() == Fault::Refused {
            self.observer.verification_failed(&self.settings.name, source.reason());
        }
        UpdaterError::Upstream { repository: self.settings.name.clone(), source: Arc::new(source) }
    }

    pub(super) fn bad_url(&self, error: &url::ParseError) -> UpdaterError {
        let (repository, why) = (self.settings.name.clone(), error.to_string());
        UpdaterError::Setting { repository, key: "metadata_url", why }
    }
}

/// A captive portal answers everything with its own page: that is trouble, and no forged metadata.
fn not_html(document: Document) -> Result<Document, UpstreamError> {
    let content_type = document.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let html = content_type.filter(|value| value.to_ascii_lowercase().contains("html"));
    match html {
        Some(found) if document.body.trim_ascii_start().starts_with(b"<") => Err(UpstreamError::WrongContent {
            url: (&document.url).into(),
            content_type: found.chars().take(60).collect(),
            expected: "TUF metadata",
        }),
        _ => Ok(document),
    }
}
