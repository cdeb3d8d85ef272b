//! Metadata files from mirrors.
//!
//! A mirror is believed nothing, so one that lies is passed over like one that is down: what counts is what the others
//! say. One that hangs costs `mirror_wait` and no more, as long as another one answers.

use std::{collections::BTreeSet, sync::Arc, sync::atomic::Ordering};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{StatusCode, header};
use jiff::Timestamp;
use tokio::time::{Instant, timeout, timeout_at};

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

/// What an answer is worth.
pub(super) enum Worth {
    /// Nothing.
    None,
    /// It would do, but others may know better: they are waited for `mirror_wait` longer.
    Some,
    /// Nothing better can come.
    All,
}

/// How a mirror fell short, as a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorFault {
    /// What it served failed verification.
    Refused,
    /// It gave no answer, or not the file.
    Unavailable,
    /// What it served is older than what another mirror has.
    Behind,
}

impl MirrorFault {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Refused, Self::Unavailable, Self::Behind];

    /// As it stands in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Behind => "behind",
        }
    }
}

/// One refresh, as far as the mirrors are concerned.
pub(super) struct Round {
    /// The time that everything of this refresh is judged by (§5.1).
    pub(super) now: Timestamp,
    until: Instant,
    /// The mirrors that did not answer in time: they are not waited for twice.
    late: BTreeSet<usize>,
    /// Whether the error that ended it came while some mirror could not be heard: then it says nothing of the
    /// repository, which that mirror may have whole.
    pub(super) unheard: bool,
}

impl Round {
    pub(super) fn new(now: Timestamp, until: Instant) -> Self {
        Self { now, until, late: BTreeSet::new(), unheard: false }
    }
}

impl Repository {
    /// Asks the mirrors for a file, all at once, and has each answer judged as it comes, until nothing better can come.
    ///
    /// # Errors
    /// The refresh's deadline. What the mirrors say is for `judge`.
    pub(super) async fn ask_all(
        &self,
        request: &MetaRequest,
        round: &mut Round,
        mut judge: impl FnMut(usize, Answer) -> Worth,
    ) -> Result<(), UpdaterError> {
        let in_time = |mirror: &usize| !round.late.contains(mirror) || round.late.len() == self.mirrors.len();
        let mut silent: BTreeSet<usize> = (0..self.mirrors.len()).filter(in_time).collect();
        let mut asked: FuturesUnordered<_> = silent.iter().map(|mirror| self.ask(*mirror, request)).collect();
        let mut until = round.until;
        while !silent.is_empty() {
            let Ok(answered) = timeout_at(until, asked.next()).await else {
                if until == round.until {
                    return Err(self.deadline());
                }
                break;
            };
            let Some((mirror, answer)) = answered else { break };
            silent.remove(&mirror);
            match judge(mirror, answer) {
                Worth::None => {}
                Worth::Some => until = until.min(Instant::now() + self.settings.mirror_wait.duration()),
                Worth::All => return Ok(()),
            }
        }
        for mirror in silent {
            tracing::warn!(repository = %self.settings.name, mirror = %self.mirrors[mirror], file = request.file_name, "a mirror did not answer in time");
            self.observer.mirror_failed(&self.settings.name, mirror, MirrorFault::Unavailable);
            round.late.insert(mirror);
        }
        round.unheard = !round.late.is_empty();
        Ok(())
    }

    /// Takes the first file that `accept` takes, asking the mirrors in turn, the one that served well last first.
    ///
    /// # Errors
    /// Of several, a refusal is the one that is told.
    pub(super) async fn first_accepted<T>(
        &self,
        request: &MetaRequest,
        accept: impl Fn(Bytes) -> Result<T, TufError>,
    ) -> Result<T, UpdaterError> {
        let errors = match self
            .in_turn(request, &BTreeSet::new(), |bytes| accept(bytes).map_err(|source| self.tuf(source)))
            .await
        {
            Ok(accepted) => return Ok(accepted),
            Err(errors) => errors,
        };
        Err(self.worst(errors))
    }

    /// The same within a refresh.
    pub(super) async fn first_of_round<T>(
        &self,
        request: &MetaRequest,
        round: &mut Round,
        accept: impl Fn(Bytes) -> Result<T, UpdaterError>,
    ) -> Result<T, UpdaterError> {
        let work = self.in_turn(request, &round.late, accept);
        let errors = match timeout_at(round.until, work).await {
            Ok(Ok(accepted)) => return Ok(accepted),
            Ok(Err(errors)) => errors,
            Err(_) => return Err(self.deadline()),
        };
        round.unheard |= errors.iter().any(|error| !error.is_refusal());
        Err(self.worst(errors))
    }

    /// Asks one mirror after the other: the next one when the last has failed, or has not answered for `mirror_wait`.
    async fn in_turn<T>(
        &self,
        request: &MetaRequest,
        last: &BTreeSet<usize>,
        accept: impl Fn(Bytes) -> Result<T, UpdaterError>,
    ) -> Result<T, Vec<UpdaterError>> {
        let mut order: Vec<usize> = (0..self.mirrors.len()).collect();
        let preferred = self.preferred.load(Ordering::Relaxed);
        order.rotate_left(preferred.min(self.mirrors.len().saturating_sub(1)));
        order.sort_by_key(|mirror| last.contains(mirror));
        let mut rest = order.into_iter();
        let ask = |mirror| self.ask(mirror, request);
        let mut asked: FuturesUnordered<_> = rest.next().map(ask).into_iter().collect();
        let mut errors = Vec::new();
        loop {
            let answered = if rest.len() == 0 {
                asked.next().await
            } else {
                let Ok(answered) = timeout(self.settings.mirror_wait.duration(), asked.next()).await else {
                    asked.extend(rest.next().map(ask));
                    continue;
                };
                answered
            };
            let Some((mirror, answer)) = answered else { return Err(errors) };
            match answer {
                Answer::File(bytes) => match accept(bytes) {
                    Ok(accepted) => {
                        self.preferred.store(mirror, Ordering::Relaxed);
                        return Ok(accepted);
                    }
                    Err(error) => errors.push(self.lied(mirror, error)),
                },
                Answer::Absent(error) => {
                    self.mirror_failed(mirror, &error);
                    errors.push(error);
                }
                Answer::Fault(error) => errors.push(error),
            }
            asked.extend(rest.next().map(ask));
        }
    }

    /// Counts a refusal of what a mirror served, and says which mirror it was.
    pub(super) fn lied(&self, mirror: usize, error: UpdaterError) -> UpdaterError {
        if error.is_refusal() {
            self.observer.verification_failed(&self.settings.name, error.reason());
        }
        self.mirror_failed(mirror, &error);
        error
    }

    /// A mirror has something older than another one: that is what mirrors do, and no attack on who also asks the other.
    pub(super) fn behind(&self, mirror: usize, why: &dyn std::fmt::Display) {
        tracing::info!(repository = %self.settings.name, mirror = %self.mirrors[mirror], %why, "a mirror is behind another one");
        self.observer.mirror_failed(&self.settings.name, mirror, MirrorFault::Behind);
    }

    fn mirror_failed(&self, mirror: usize, error: &UpdaterError) {
        let fault = if error.is_refusal() { MirrorFault::Refused } else { MirrorFault::Unavailable };
        if self.mirrors.len() > 1 {
            tracing::warn!(repository = %self.settings.name, mirror = %self.mirrors[mirror], %error, "a mirror is passed over");
        }
        self.observer.mirror_failed(&self.settings.name, mirror, fault);
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

    fn deadline(&self) -> UpdaterError {
        let deadline = self.settings.refresh_deadline;
        UpdaterError::Deadline { repository: self.settings.name.clone(), deadline }
    }

    async fn ask(&self, mirror: usize, request: &MetaRequest) -> (usize, Answer) {
        let answer = self.answer_of(mirror, request).await;
        if let Answer::Fault(error) = &answer {
            self.mirror_failed(mirror, error);
        }
        (mirror, answer)
    }

    async fn answer_of(&self, mirror: usize, request: &MetaRequest) -> Answer {
        let url = match self.mirrors[mirror].join(&request.file_name) {
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

    fn bad_url(&self, error: &url::ParseError) -> UpdaterError {
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
