//! Forms of settings: one value or a list of them, URLs.

use serde::{Deserialize, Deserializer, de};
use url::Url;

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A URL or a list of URLs.
pub(super) fn urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Url>, D::Error> {
    let texts = match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    };
    texts.iter().map(|text| url(text).map_err(de::Error::custom)).collect()
}

/// A URL of a kind that upstreams can have, as a folder: with a slash at its end, without query and fragment.
pub(super) fn url(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("`{}` is not a URL: {error}", without_userinfo(text)))?;
    if !matches!(url.scheme(), "http" | "https" | "file") {
        return Err(format!("`{}` is not an http, https or file URL", without_userinfo(text)));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong into a URL; give them as credentials of the upstream".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`{text}` has a query or a fragment"));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn without_userinfo(text: &str) -> &str {
    text.rsplit('@').next().unwrap_or_default()
}
