//! How targets are called: from a file to the names under which it can be signed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{FilePath, ProjectName, filename::Distribution};

/// How a file's target is called: text with `{project}`, `{filename}` and `{path}`.
///
/// `{project}` is told from the filename, normalised; `{filename}` is the decoded filename; `{path}` is the decoded
/// path behind the file base. Presets: `project` is `{project}/{filename}`, `flat` is `{filename}`, `path` and
/// `pypi-pep458` are `{path}`.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetTemplate(Vec<Piece>);

/// How the signed listing of a project is called: text with `{project}`.
#[derive(Clone, PartialEq, Eq)]
pub struct ListingPath(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Project,
    Filename,
    Path,
}

const PRESETS: [(&str, &str); 4] =
    [("project", "{project}/{filename}"), ("flat", "{filename}"), ("path", "{path}"), ("pypi-pep458", "{path}")];

impl TargetTemplate {
    /// Reads a preset or a template; the error is a sentence.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = PRESETS.iter().find(|(name, _)| *name == text).map_or(text, |(_, template)| template);
        let pieces = pieces(text)?;
        // Otherwise one target would stand for several files.
        if !pieces.iter().any(|piece| matches!(piece, Piece::Filename | Piece::Path)) {
            return Err(format!("`{text}` has neither {{filename}} nor {{path}}, nor is it a preset"));
        }
        Ok(Self(pieces))
    }

    /// The names under which a file can be signed, one for each project its filename may belong to.
    pub fn targets(&self, filename: &str, path: &FilePath) -> Vec<String> {
        if !self.0.contains(&Piece::Project) {
            return vec![fill(&self.0, "", filename, path)];
        }
        let Ok(distribution) = Distribution::parse(filename) else {
            return Vec::new();
        };
        let projects = distribution.candidates.iter().map(|candidate| &candidate.project);
        projects.map(|project| fill(&self.0, project.as_str(), filename, path)).collect()
    }

    /// The name under which a file of a known project is signed (the signer's side).
    pub fn target(&self, project: &ProjectName, filename: &str, path: &FilePath) -> String {
        fill(&self.0, project.as_str(), filename, path)
    }

    /// The PATHPATTERN of the names, as delegations and maps have them; `None` where `{path}` may have any depth.
    pub fn glob(&self) -> Option<String> {
        (!self.0.contains(&Piece::Path)).then(|| glob(&self.0))
    }

    /// Whether names begin with fixed text, so that two mounts can share a repository without sharing files.
    pub fn has_prefix(&self) -> bool {
        matches!(self.0.first(), Some(Piece::Text(_)))
    }
}

impl ListingPath {
    /// Reads a template; the error is a sentence.
    pub fn new(text: &str) -> Result<Self, String> {
        let pieces = pieces(text)?;
        let foreign = pieces.iter().any(|piece| matches!(piece, Piece::Filename | Piece::Path));
        if foreign || !pieces.contains(&Piece::Project) {
            return Err(format!("`{text}` must have {{project}} and no other placeholder"));
        }
        Ok(Self(pieces))
    }

    /// The PATHPATTERN of the names, as delegations and maps have them.
    pub fn glob(&self) -> String {
        glob(&self.0)
    }

    /// The target path of a project's listing.
    pub fn target(&self, project: &ProjectName) -> String {
        self.0
            .iter()
            .map(|piece| if let Piece::Text(text) = piece { text.as_str() } else { project.as_str() })
            .collect()
    }
}

impl Default for TargetTemplate {
    fn default() -> Self {
        Self(vec![Piece::Project, Piece::Text("/".to_owned()), Piece::Filename])
    }
}

impl Default for ListingPath {
    fn default() -> Self {
        Self(vec![Piece::Text("simple/".to_owned()), Piece::Project, Piece::Text("/index.json".to_owned())])
    }
}

fn fill(pieces: &[Piece], project: &str, filename: &str, path: &FilePath) -> String {
    let mut target = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => target.push_str(text),
            Piece::Project => target.push_str(project),
            Piece::Filename => target.push_str(filename),
            Piece::Path => target.push_str(&path.decoded()),
        }
    }
    target
}

/// Placeholders as `*`; what would be a wildcard in the text stands for itself.
fn glob(pieces: &[Piece]) -> String {
    let mut pattern = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => text.chars().for_each(|c| match c {
                '*' | '?' | '[' => pattern.extend(['[', c, ']']),
                plain => pattern.push(plain),
            }),
            Piece::Project | Piece::Filename | Piece::Path => pattern.push('*'),
        }
    }
    pattern
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    if text.len() > 1000 || text.starts_with('/') || text.chars().any(char::is_control) {
        return Err(format!("`{}` is not a relative path", text.escape_debug().take(80).collect::<String>()));
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (before, after) = rest.split_once('{').map_or((rest, None), |(before, after)| (before, Some(after)));
        if before.contains('}') {
            return Err(format!("`{text}` has a }} without its {{"));
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let Some(after) = after else { break };
        let (name, after) = after.split_once('}').ok_or_else(|| format!("`{text}` has a {{ without its }}"))?;
        pieces.push(match name {
            "project" => Piece::Project,
            "filename" => Piece::Filename,
            "path" => Piece::Path,
            _ => return Err(format!("{{{name}}} is not a placeholder; known are {{project}}, {{filename}}, {{path}}")),
        });
        rest = after;
    }
    Ok(pieces)
}

fn write(pieces: &[Piece], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    pieces.iter().try_for_each(|piece| {
        f.write_str(match piece {
            Piece::Text(text) => text,
            Piece::Project => "{project}",
            Piece::Filename => "{filename}",
            Piece::Path => "{path}",
        })
    })
}

macro_rules! text_forms {
    ($type:ty) => {
        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::new(text)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(&self.0, f)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(&self.0, f)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}
text_forms!(TargetTemplate);
text_forms!(ListingPath);

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(template: &str, path: &str) -> Vec<String> {
        let path = FilePath::new(path).unwrap();
        TargetTemplate::new(template).unwrap().targets(&path.filename(), &path)
    }

    #[test]
    fn the_project_is_told_from_the_filename() {
        assert_eq!(
            targets("{project}/{filename}", "aa/Foo_Bar-1.0-py3-none-any.whl"),
            ["foo-bar/Foo_Bar-1.0-py3-none-any.whl"]
        );
        assert_eq!(targets("project", "aa/t-2.0%2Bcpu.zip"), ["t/t-2.0+cpu.zip"]);
        assert_eq!(
            targets("x/{project}/{filename}", "foo-1-2.tar.gz"),
            ["x/foo/foo-1-2.tar.gz", "x/foo-1/foo-1-2.tar.gz"]
        );
        assert_eq!(targets("{project}/{filename}", "foo-1.0.egg"), Vec::<String>::new());
    }

    #[test]
    fn other_layouts_need_no_project() {
        assert_eq!(targets("pypi-pep458", "aa/bb/foo%2D1.0.egg"), ["aa/bb/foo-1.0.egg"]);
        assert_eq!(targets("flat", "aa/bb/foo-1.0.egg"), ["foo-1.0.egg"]);
        assert_eq!(targets("wheels/{path}", "a/b"), ["wheels/a/b"]);
        assert!(TargetTemplate::new("w/{path}").unwrap().has_prefix() && !TargetTemplate::default().has_prefix());
    }

    #[test]
    fn templates_that_cannot_work_are_refused() {
        for text in
            ["", "{project}", "fixed", "{filename", "filename}", "{}", "{file}{filename}", "/{filename}", "{path}\n"]
        {
            assert!(TargetTemplate::new(text).is_err(), "{text:?}");
        }
        for text in ["", "index.json", "{project}/{filename}", "{path}"] {
            assert!(ListingPath::new(text).is_err(), "{text:?}");
        }
        let listing = ListingPath::new("simple/{project}/index.json").unwrap();
        assert_eq!(
            (listing.target(&"Foo.Bar".parse().unwrap()).as_str(), &listing),
            ("simple/foo-bar/index.json", &ListingPath::default())
        );
        assert_eq!(TargetTemplate::default().to_string(), "{project}/{filename}");
    }
}
