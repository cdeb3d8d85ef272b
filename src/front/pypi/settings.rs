//! The keys of a `[[mount]]` that this front owns.

use serde::{Deserialize, Deserializer};
use url::Url;

use crate::{
    base::{ByteSize, Span},
    front::{glob::Glob, mount::MountPath, serde_forms},
    simple::{ListingPath, ProjectName, TargetTemplate},
};

/// Settings of a `pypi` mount.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the mount is.
    #[serde(default)]
    pub path: MountPath,
    /// The indexes, `…/simple/`; the first that matches owns a name. None: pages come from signed listings alone.
    #[serde(default, deserialize_with = "indexes")]
    pub index_url: Vec<Index>,
    /// The allowed file bases; left out: the origins of the indexes.
    #[serde(default, deserialize_with = "serde_forms::urls")]
    pub files_url: Vec<Url>,
    /// How a file's target is called.
    #[serde(default)]
    pub target_path: TargetTemplate,
    /// How the signed listing of a project is called, where the repository has one.
    #[serde(default)]
    pub listing_path: Option<ListingPath>,
    /// What the digests of a listing are good for.
    #[serde(default)]
    pub listing: ListingRole,
    /// What becomes of files that nobody signed, on pages of projects that have signed files.
    #[serde(default)]
    pub unsigned: Unsigned,
    /// Whose word counts on whether a file of a signed listing is yanked.
    #[serde(default)]
    pub yanked: YankedBy,
    /// How many files of a page are looked up without a signed listing, newest first.
    #[serde(default = "page_lookups_max")]
    pub page_lookups_max: usize,
    /// How long an upstream page is used before it is asked for again.
    #[serde(default = "index_fresh")]
    pub index_fresh: Span,
    /// The largest upstream page.
    #[serde(default = "index_size_max")]
    pub index_size_max: ByteSize,
    /// How long clients may keep a page (`Cache-Control: max-age`); 0 is `no-cache`. Bounded by the signed expiry.
    #[serde(default)]
    pub max_age: Span,
}

impl Settings {
    /// The keys, for whoever has to tell them from those of other parts of a `[[mount]]`.
    pub const KEYS: [&str; 12] = [
        "path",
        "index_url",
        "files_url",
        "target_path",
        "listing_path",
        "listing",
        "unsigned",
        "yanked",
        "page_lookups_max",
        "index_fresh",
        "index_size_max",
        "max_age",
    ];
}

fn page_lookups_max() -> usize {
    256
}

fn index_fresh() -> Span {
    Span::mins(5)
}

fn index_size_max() -> ByteSize {
    ByteSize::mib(64)
}

/// An upstream index and the names that it owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Where it is, with a slash at its end.
    pub url: Url,
    /// Patterns of normalised names; none means all.
    pub projects: Vec<Glob>,
}

impl Index {
    /// Whether a project is looked up here.
    pub fn owns(&self, project: &ProjectName) -> bool {
        self.projects.is_empty() || self.projects.iter().any(|pattern| pattern.matches(project.as_str()))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum IndexForm {
    One(String),
    Many(Vec<IndexEntry>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexEntry {
    url: String,
    #[serde(default)]
    projects: Vec<Glob>,
}

fn indexes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Index>, D::Error> {
    let entries = match IndexForm::deserialize(deserializer)? {
        IndexForm::One(url) => vec![IndexEntry { url, projects: Vec::new() }],
        IndexForm::Many(entries) => entries,
    };
    let index = |entry: IndexEntry| {
        let url = serde_forms::url(&entry.url).map_err(serde::de::Error::custom)?;
        Ok(Index { url, projects: entry.projects })
    };
    entries.into_iter().map(index).collect()
}

/// What the digests of a signed listing are good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListingRole {
    /// It describes; each file must be a target of its own.
    #[default]
    Describes,
    /// It authorises the files it lists, also those that are no targets (the transitive form of PEP 458 drafts).
    Authorises,
}

/// What becomes of unsigned files beside signed ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unsigned {
    /// Listed as yanked with the reason: ranges resolve to what is signed, an exact pin is told why.
    #[default]
    Yank,
    /// Listed plainly: an unpinned install of a newer unsigned release fails loudly.
    List,
    /// Left out.
    Omit,
}

/// Whose word counts on yanks of files in a signed listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum YankedBy {
    /// The signer's alone: an index cannot steer to an older release by yanking the newest.
    #[default]
    Signer,
    /// The upstream index's as well.
    Upstream,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn the_documented_forms_are_read() {
        let settings = read(
            "path = \"/pypi\"\nindex_url = \"https://index.example/simple\"\nfiles_url = [\"https://files.example/packages/\"]\n\
             target_path = \"{project}/{filename}\"\nlisting_path = \"simple/{project}/index.json\"\nunsigned = \"omit\"\nlisting = \"authorises\"\n",
        )
        .unwrap();
        assert_eq!(settings.index_url[0].url.as_str(), "https://index.example/simple/");
        assert_eq!((settings.unsigned, settings.listing), (Unsigned::Omit, ListingRole::Authorises));
        assert_eq!((settings.page_lookups_max, settings.index_fresh), (256, Span::mins(5)));
        let several = read(
            "index_url = [{ url = \"https://mine.example/simple/\", projects = [\"acme-*\"] }, { url = \"https://index.example/simple/\" }]\n",
        )
        .unwrap();
        assert!(several.index_url[0].owns(&"Acme.Tool".parse().unwrap()));
        assert!(!several.index_url[0].owns(&"requests".parse().unwrap()));
        assert!(several.index_url[1].owns(&"requests".parse().unwrap()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("index_ulr = \"https://index.example/\"", "unknown field `index_ulr`"),
            ("index_url = \"ftp://index.example/\"", "not an http, https or file URL"),
            ("index_url = \"https://u:p@index.example/\"", "credentials do not belong"),
            ("index_url = \"https://index.example/?a\"", "query"),
            ("files_url = \"nonsense\"", "not a URL"),
            ("target_path = \"{nonsense}\"", "{nonsense}"),
            ("unsigned = \"keep\"", "unknown variant"),
            ("path = \"pypi\"", "does not begin with a slash"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words) && !error.contains("u:p"), "{text}: {error}");
        }
    }

    #[test]
    fn the_list_of_keys_is_complete() {
        let error = read("nonsense = 1").unwrap_err();
        Settings::KEYS.iter().for_each(|key| assert!(error.contains(&format!("`{key}`")), "{key}: {error}"));
        assert_eq!(error.matches('`').count(), 2 * (Settings::KEYS.len() + 1));
    }
}
