//! One page, fetched and read.

use std::{sync::Arc, time::Duration};

use http::header;
use url::Url;

use super::{HintError, work};
use crate::{
    base::{ByteSize, Digest},
    simple::{Format, Page, ProjectName, accept::UPSTREAM_ACCEPT},
    upstream::{Client, Document, DocumentRequest, Origins},
};

/// Where a project's page is: below the index, which may or may not end with a slash.
pub fn page_url(index: &Url, project: &ProjectName) -> Url {
    let mut url = index.clone();
    url.set_path(&format!("{}/{project}/", index.path().trim_end_matches('/')));
    url
}

/// A page that was read, and what it was read from.
pub(super) struct Read {
    pub(super) page: Page,
    /// Changes with the page and with what its links are relative to.
    pub(super) tag: Arc<str>,
    /// Bytes of the document.
    pub(super) size: usize,
}

/// Fetches and reads a project's page at `url`; also gives the document it came from. Redirects stay on its origin.
pub async fn fetch(
    client: &Client,
    url: &Url,
    project: &ProjectName,
    limit: ByteSize,
    deadline: Duration,
) -> Result<(Page, Document), HintError> {
    let document = document(client, url, limit, deadline).await?;
    let page = read(project, &document).await?.page;
    Ok((page, document))
}

pub(super) async fn document(
    client: &Client,
    url: &Url,
    limit: ByteSize,
    deadline: Duration,
) -> Result<Document, HintError> {
    let allowed = Origins::of([url]);
    let request =
        DocumentRequest { accept: Some(UPSTREAM_ACCEPT), limit, deadline, ..DocumentRequest::new(url, &allowed) };
    client.document(&request).await.map_err(|error| HintError::Upstream(error.into()))
}

pub(super) fn content_type(document: &Document) -> Option<&str> {
    document.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

/// Reads a page off the threads that answer requests: a large one takes a while.
pub(super) async fn read(project: &ProjectName, document: &Document) -> Result<Read, HintError> {
    let content_type = content_type(document).map(str::to_owned);
    let (project, body, base) = (project.clone(), document.body.clone(), document.url.clone());
    let read = move || Read::of(&project, content_type.as_deref(), &body, &base);
    let is_large = document.body.len() as u64 > work::LIGHT.bytes();
    work::blocking(is_large, read).await.unwrap_or(Err(HintError::Stopped))
}

impl Read {
    /// Reads a page by the type it was sent with. A `file:` index has no types: the first byte tells.
    pub(super) fn of(
        project: &ProjectName,
        content_type: Option<&str>,
        body: &[u8],
        base: &Url,
    ) -> Result<Self, HintError> {
        let format = match content_type {
            Some(value) => Format::from_content_type(value).ok_or_else(|| HintError::ContentType {
                project: project.clone(),
                content_type: value.chars().filter(char::is_ascii_graphic).take(80).collect(),
            })?,
            None if body.first() == Some(&b'{') => Format::Json,
            None => Format::PlainHtml,
        };
        let page = if format.is_json() { Page::from_json(body, base) } else { Page::from_html(body, base) };
        let page = page.map_err(|error| HintError::Page { project: project.clone(), error })?;
        let tag = format!("{} {base} {}", Digest::sha256(body).to_hex(), format.content_type());
        Ok(Self { page, tag: tag.into(), size: body.len() })
    }
}
