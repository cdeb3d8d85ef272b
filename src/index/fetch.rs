//! One page, fetched and read.

use std::time::Duration;

use http::header;
use url::Url;

use super::HintError;
use crate::{
    base::ByteSize,
    simple::{Format, Page, ProjectName, accept::UPSTREAM_ACCEPT},
    upstream::{Client, Document, DocumentRequest, Origins},
};

/// Where a project's page is: below the index, which may or may not end with a slash.
pub fn page_url(index: &Url, project: &ProjectName) -> Url {
    let mut url = index.clone();
    url.set_path(&format!("{}/{project}/", index.path().trim_end_matches('/')));
    url
}

/// Fetches and reads a project's page at `url`; also gives the document it came from. Redirects stay on its origin.
pub async fn fetch(
    client: &Client,
    url: &Url,
    project: &ProjectName,
    limit: ByteSize,
    deadline: Duration,
) -> Result<(Page, Document), HintError> {
    let allowed = Origins::of([url]);
    let request =
        DocumentRequest { accept: Some(UPSTREAM_ACCEPT), limit, deadline, ..DocumentRequest::new(url, &allowed) };
    let document = client.document(&request).await.map_err(|error| HintError::Upstream(error.into()))?;
    let content_type = document.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let page = read(project, content_type, &document.body, &document.url)?;
    Ok((page, document))
}

/// Reads a page by the type it was sent with. A `file:` index has no types: the first byte tells.
pub(super) fn read(
    project: &ProjectName,
    content_type: Option<&str>,
    body: &[u8],
    base: &Url,
) -> Result<Page, HintError> {
    let format = match content_type {
        Some(value) => Format::from_content_type(value).ok_or_else(|| HintError::ContentType {
            project: project.clone(),
            content_type: value.chars().filter(char::is_ascii_graphic).take(80).collect(),
        })?,
        None if body.first() == Some(&b'{') => Format::Json,
        None => Format::PlainHtml,
    };
    let page = if format.is_json() { Page::from_json(body, base) } else { Page::from_html(body, base) };
    page.map_err(|error| HintError::Page { project: project.clone(), error })
}
