//! The table of layers, held against the source: a folder names only folders of lower rows, and itself.
//!
//! Every way to name another folder counts: `use` with its groups, paths in expressions, types and attributes, paths
//! inside macros, `super::` that climbs out of a folder, and code that is compiled for tests only.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use syn::visit::{self, Visit};

use crate::harness::folder;

/// Fakes for tests; they may name anything, and only test code names them.
const TESTING: &str = "testing";

/// The table: each folder's row, counted from the bottom. What stands in one row does not name its neighbours.
struct Table(BTreeMap<String, u32>);

impl Table {
    /// As docs/ARCHITECTURE.md draws it: lines that begin with a row and a folder in backquotes.
    fn drawn() -> Self {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md")).unwrap();
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            let row = cells.next()?.parse().ok()?;
            let folder = cells.next()?.trim_matches('`').trim_end_matches('/').to_owned();
            Some((folder, row))
        };
        Self(text.lines().filter_map(line).collect())
    }

    fn row(&self, folder: &str) -> Option<u32> {
        self.0.get(folder).copied()
    }

    /// Whether `from` may name `to`.
    fn allows(&self, from: &str, to: &str) -> bool {
        if from == to || from == TESTING || to == TESTING {
            return true;
        }
        match (self.row(from), self.row(to)) {
            (Some(from), Some(to)) => to < from,
            _ => false,
        }
    }
}

/// The top folder of a file below src/, and the modules below the crate's root that lead to it.
fn module_of(inner: &Path) -> Option<(String, Vec<String>)> {
    let mut modules: Vec<String> =
        inner.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if modules.last().is_some_and(|last| last == "mod") {
        modules.pop();
    }
    if modules == ["lib"] || modules == ["main"] {
        return None;
    }
    Some((modules.first()?.clone(), modules))
}

/// Finds the crate's top names that a file names.
struct Names {
    /// How deep below the crate's root the code stands.
    depth: usize,
    found: BTreeMap<String, String>,
}

impl Names {
    fn in_file(text: &str, depth: usize) -> Result<BTreeMap<String, String>, syn::Error> {
        let file = syn::parse_file(text)?;
        let mut names = Self { depth, found: BTreeMap::new() };
        names.visit_file(&file);
        Ok(names.found)
    }

    /// One whole path, as its segments. The first name below the crate's root is kept.
    fn path(&mut self, segments: &[String]) {
        let rest = match segments.first().map(String::as_str) {
            Some("crate") => &segments[1..],
            Some("super") => {
                let climbed = segments.iter().take_while(|segment| *segment == "super").count();
                if climbed < self.depth {
                    return;
                }
                &segments[climbed..]
            }
            _ => return,
        };
        let named = rest.first().map_or("(the whole crate)", String::as_str);
        self.found.entry(named.to_owned()).or_insert_with(|| segments.join("::"));
    }

    fn tree(&mut self, prefix: &mut Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.tree(prefix, &path.tree);
                prefix.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(prefix, item)),
            syn::UseTree::Name(name) => self.leaf(prefix, &name.ident.to_string()),
            syn::UseTree::Rename(rename) => self.leaf(prefix, &rename.ident.to_string()),
            syn::UseTree::Glob(_) => self.leaf(prefix, "*"),
        }
    }

    fn leaf(&mut self, prefix: &[String], name: &str) {
        let mut segments = prefix.to_vec();
        if name != "self" {
            segments.push(name.to_owned());
        }
        self.path(&segments);
    }

    /// What stands in a macro is not parsed by the compiler's grammar: its words are read in a row. Words that follow
    /// one another without `::` between them begin a new path.
    fn words(&mut self, text: &str) {
        let divides = |c: char| !c.is_alphanumeric() && !c.is_whitespace() && c != '_' && c != ':';
        let spaced = text.replace("::", " :: ").replace(divides, " ; ");
        let mut path: Vec<String> = Vec::new();
        let mut joined = false;
        for word in spaced.split_whitespace() {
            if word == "::" {
                joined = true;
                continue;
            }
            if !joined {
                self.path(&std::mem::take(&mut path));
            }
            joined = false;
            path.push(word.to_owned());
        }
        self.path(&path);
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&mut Vec::new(), &item.tree);
        visit::visit_item_use(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(&segments);
        visit::visit_path(self, path);
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {
        // `pub(crate)` and `pub(super)` say who may see, not whom the code knows.
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.words(&call.tokens.to_string());
        visit::visit_macro(self, call);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.words(&list.tokens.to_string());
        visit::visit_meta_list(self, list);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.depth += 1;
        visit::visit_item_mod(self, module);
        self.depth -= 1;
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn a_folder_names_only_folders_of_lower_rows_and_itself() {
    let table = Table::drawn();
    let mut wrong = Vec::new();
    for file in folder::files_below(&source()) {
        let inner = file.strip_prefix(source()).unwrap();
        if inner.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let Some((top, modules)) = module_of(inner) else { continue };
        if top != TESTING && table.row(&top).is_none() {
            wrong.push(format!("{}: `{top}` stands in no row", inner.display()));
            continue;
        }
        let names = Names::in_file(&fs::read_to_string(&file).unwrap(), modules.len()).unwrap();
        let bad = names.iter().filter(|(name, _)| !table.allows(&top, name));
        wrong.extend(bad.map(|(_, path)| format!("{}: {top} must not name {path}", inner.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_way_to_name_a_folder_is_seen() {
    let found =
        |text: &str, depth: usize| -> Vec<String> { Names::in_file(text, depth).unwrap().into_keys().collect() };
    assert_eq!(found("use crate::{tuf::{self, keys}, base as b, cache::*};", 1), ["base", "cache", "tuf"]);
    assert_eq!(found("fn f(a: crate::tuf::A) -> B<crate::base::C> { crate::cache::g() }", 1), ["base", "cache", "tuf"]);
    assert_eq!(found("use super::tuf::A;", 1), ["tuf"]);
    assert!(found("use super::sibling::A;", 2).is_empty());
    assert_eq!(found("use super::super::tuf::A;", 2), ["tuf"]);
    assert_eq!(found("mod tests { use super::super::tuf::A; use super::B; }", 1), ["tuf"]);
    assert_eq!(found("#[cfg(test)] mod tests { fn f() { crate::admin::g() } }", 1), ["admin"]);
    assert_eq!(found("fn f() { vec![crate::admin::g(), a] ; matches!(x, crate::base::Y) }", 1), ["admin", "base"]);
    assert_eq!(found("#[serde(with = \"x\")] struct A; #[b(crate::tuf::c)] struct D;", 1), ["tuf"]);
    assert_eq!(found("use crate as everything;", 1), ["(the whole crate)"]);
    assert!(found("pub(crate) fn f() { super::g() }", 2).is_empty());
    assert_eq!(found("impl crate::telemetry::T for crate::base::U {}", 1), ["base", "telemetry"]);
}

#[test]
fn the_table_allows_down_and_forbids_up_and_sideways() {
    let table =
        Table::parse("| row | folder |\n|---|---|\n| 0 | `base` | x |\n| 1 | `tuf` | y |\n| 1 | `simple/` | z |\n");
    assert!(table.allows("tuf", "base") && table.allows("simple", "simple"));
    assert!(!table.allows("base", "tuf") && !table.allows("tuf", "simple") && !table.allows("tuf", "Something"));
    assert!(Table::drawn().row("base") == Some(0), "the table of docs/ARCHITECTURE.md is not read");
}
