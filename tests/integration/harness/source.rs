//! The source as documents speak of it: which tests and which items there are, by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::visit::{self, Visit};

use super::folder;

/// The package's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The words in backquotes.
pub fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether a quoted word names code: a file, and an item in it.
pub fn is_code(word: &str) -> bool {
    word.contains(".rs::")
}

/// Whether a quoted word names a test: a sentence, in the form that Rust gives it.
pub fn is_test(word: &str) -> bool {
    word.contains('_')
        && word.len() > 12
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// What the tree holds: every test's name, and every named item of each file below src/.
#[derive(Default)]
pub struct Tree {
    /// Names of tests.
    pub tests: BTreeSet<String>,
    /// Names of items by file.
    pub items: BTreeMap<String, BTreeSet<String>>,
}

impl Tree {
    /// Reads all of `src/` and `tests/`.
    pub fn read() -> Self {
        let mut tree = Self::default();
        for folder in ["src", "tests"] {
            let base = root().join(folder);
            for file in folder::files_below(&base) {
                if file.extension().is_some_and(|extension| extension == "rs") {
                    tree.read_file(&base, &file);
                }
            }
        }
        tree
    }

    fn read_file(&mut self, base: &Path, file: &PathBuf) {
        let parsed = syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap();
        let mut names = Names::default();
        names.visit_file(&parsed);
        self.tests.extend(names.tests);
        let inner = file.strip_prefix(base).unwrap().to_str().unwrap().to_owned();
        if base.ends_with("src") {
            self.items.insert(inner, names.items);
        }
    }
}

#[derive(Default)]
struct Names {
    tests: BTreeSet<String>,
    items: BTreeSet<String>,
}

impl Names {
    fn function(&mut self, attributes: &[syn::Attribute], name: &syn::Ident) {
        let is_test = attributes
            .iter()
            .any(|attribute| attribute.path().segments.last().is_some_and(|segment| segment.ident == "test"));
        let into = if is_test { &mut self.tests } else { &mut self.items };
        into.insert(name.to_string());
    }

    fn item(&mut self, name: &syn::Ident) {
        self.items.insert(name.to_string());
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.attrs, &item.sig.ident);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig.ident);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.item(&item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        field.ident.iter().for_each(|name| self.item(name));
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.item(&item.ident);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.item(&item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.item(&item.ident);
    }

    /// Tests of `proptest!` are written as functions inside of it: `#[test] fn name(…)`.
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let text = call.tokens.to_string();
        let words: Vec<&str> = text.split_whitespace().collect();
        let named = words.windows(2).filter(|pair| pair[0] == "fn").map(|pair| pair[1]);
        let is_proptest = call.path.segments.last().is_some_and(|segment| segment.ident == "proptest");
        if is_proptest {
            self.tests.extend(named.map(|name| name.split('(').next().unwrap_or(name).to_owned()));
        }
    }
}

#[test]
fn tests_and_items_are_told_apart() {
    let mut names = Names::default();
    names.visit_file(
        &syn::parse_file(
            "mod tests { #[test] fn a_test() {} #[tokio::test] async fn another() {} fn no_test() {} \
             proptest! { #[test] fn of_any(x in 0..1) {} } } struct S { field: u8 } impl S { fn method(&self) {} }",
        )
        .unwrap(),
    );
    assert_eq!(names.tests.iter().collect::<Vec<_>>(), ["a_test", "another", "of_any"]);
    for item in ["no_test", "S", "field", "method"] {
        assert!(names.items.contains(item), "{item}");
    }
}
