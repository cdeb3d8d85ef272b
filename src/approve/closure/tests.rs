//! What locks leave out, what the index has under other digests, and what approved files require, against an index that
//! may lie.

use std::{fs, io::Write as _};

use flate2::{Compression, write::GzEncoder};

use super::{
    super::tests::{World, wheel, wheel_saying},
    *,
};
use crate::{
    approve::{ApproveReport, ApproveRequest, NoBuild, Provenance, Silent, approve, revoke},
    base::{Digest, Fault},
    repository::ApprovalRules,
    tuf::TargetPath,
};

/// An sdist with these files in its one folder.
fn sdist(project: &str, version: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("{project}-{version}/{name}"), content.as_bytes()).unwrap();
    }
    let mut encoder = builder.into_inner().unwrap();
    encoder.flush().unwrap();
    encoder.finish().unwrap()
}

fn building_with(requires: &str) -> Vec<(&'static str, String)> {
    vec![("pyproject.toml", format!("[build-system]\nrequires = [{requires}]\n"))]
}

fn sdist_building_with(project: &str, requires: &str) -> Vec<u8> {
    let files = building_with(requires);
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    sdist(project, "1.0", &files)
}

/// Offers a wheel for any platform and gives its bytes.
fn offer(world: &World, project: &str, version: &str, lines: &str) -> Vec<u8> {
    let bytes = wheel_saying(project, version, lines, &[]);
    world.index.add(project, &wheel_path(project, version), &bytes);
    bytes
}

fn wheel_path(project: &str, version: &str) -> String {
    format!("/files/{project}-{version}-py3-none-any.whl")
}

fn offer_sdist(world: &World, project: &str, bytes: &[u8]) {
    world.index.add(project, &format!("/files/{project}-1.0.tar.gz"), bytes);
}

/// `requirement (of project, where): why` of each that is not covered.
fn said(closure: &Closure) -> Vec<String> {
    let one = |found: &Uncovered| {
        let only_where = found.only_where.as_ref().map(|marker| format!(", where {marker}")).unwrap_or_default();
        format!("{:?} {} (of {}{only_where}): {:?}", found.when, found.requirement, found.project, found.why)
    };
    closure.uncovered.iter().map(one).collect()
}

async fn with_build(world: &World) -> ApproveReport {
    approve(&ApproveRequest { with_build: true, ..world.request() }, &Silent).await.unwrap()
}

/// A file name, and what it says for a pin of foo 1.0 with this digest and one of bar without any.
type Form = (&'static str, fn(&str) -> String);

const FORMS: [Form; 4] = [
    ("requirements.txt", |sha256| format!("foo==1.0 --hash=sha256:{sha256}\nbar==1.0\n")),
    ("pylock.toml", |sha256| {
        format!(
            "lock-version = \"1.0\"\ncreated-by = \"x\"\n\
             [[packages]]\nname = \"foo\"\nversion = \"1.0\"\n\
             wheels = [{{ name = \"foo-1.0-py3-none-any.whl\", hashes = {{ sha256 = \"{sha256}\" }} }}]\n\
             [[packages]]\nname = \"bar\"\nversion = \"1.0\"\n\
             wheels = [{{ name = \"bar-1.0-py3-none-any.whl\", hashes = {{ md5 = \"00\" }} }}]\n"
        )
    }),
    ("uv.lock", |sha256| {
        format!(
            "version = 1\n[[package]]\nname = \"foo\"\nversion = \"1.0\"\nsource = {{ registry = \"https://index.example/simple\" }}\n\
             wheels = [{{ url = \"https://index.example/foo-1.0-py3-none-any.whl\", hash = \"sha256:{sha256}\" }}]\n\
             [[package]]\nname = \"bar\"\nversion = \"1.0\"\nsource = {{ registry = \"https://index.example/simple\" }}\n"
        )
    }),
    ("poetry.lock", |sha256| {
        format!(
            "[[package]]\nname = \"foo\"\nversion = \"1.0\"\n\
             files = [{{ file = \"foo-1.0-py3-none-any.whl\", hash = \"sha256:{sha256}\" }}]\n\
             [[package]]\nname = \"bar\"\nversion = \"1.0\"\nfiles = []\n\
             [metadata]\nlock-version = \"2.1\"\ncontent-hash = \"x\"\n"
        )
    }),
];

#[tokio::test]
async fn every_kind_of_lock_file_has_what_it_leaves_out_told_and_another_digest_in_the_index_refused() {
    for (name, text) in FORMS {
        let world = World::new().await;
        let bytes = offer(&world, "foo", "1.0", "");
        let path = world.folder.path().join(name);
        fs::write(&path, text(&Digest::sha256(&bytes).to_hex())).unwrap();
        let request = ApproveRequest { locks: vec![path.clone()], ..world.request() };
        let report = approve(&request, &Silent).await.unwrap();
        assert_eq!(report.approved, ["foo/foo-1.0-py3-none-any.whl"], "{name}");
        let [left_out] = report.left_out.as_slice() else { panic!("{name}: {:?}", report.left_out) };
        assert!(left_out.contains("bar") && left_out.contains(name) && left_out.contains("hash"), "{left_out}");

        // The same lock file, and an index that has other bytes of that name.
        let world = World::new().await;
        world.index.add("foo", &wheel_path("foo", "1.0"), &wheel("foo", "1.0", &[("evil.py", b"")]));
        let request = ApproveRequest { locks: vec![path], ..world.request() };
        let error = world.refused_as(&request).await;
        assert!(matches!(&error, ApproveError::OtherDigest { pin, .. } if pin == "foo 1.0"), "{name}: {error}");
        assert_eq!(error.fault(), Fault::Refused);
        assert!(error.to_string().contains("foo-1.0-py3-none-any.whl"), "{error}");
    }
}

#[tokio::test]
async fn what_a_wheel_requires_and_nothing_approved_satisfies_is_told_until_it_is_approved() {
    let world = World::new().await;
    let foo = offer(&world, "foo", "1.0", "Requires-Dist: bar>=2\nRequires-Dist: baz\n");
    let bar = offer(&world, "bar", "1.0", "");
    world.lock(&[("foo==1.0", &[&foo]), ("bar==1.0", &[&bar])]);
    let report = world.approve().await.unwrap();
    assert_eq!(
        said(&report.closure),
        ["Run bar>=2 (of foo): OtherVersions([\"1.0\"])", "Run baz (of foo): Unsigned"],
        "{:?}",
        report.closure
    );
    assert_eq!(report.closure.uncovered[0].files, ["foo/foo-1.0-py3-none-any.whl"]);
    assert_eq!((report.closure.files, report.closure.unknown.len()), (2, 0));
    // What is published counts as much as what is staged.
    world.publish();
    let (bar, baz) = (offer(&world, "bar", "2.1", ""), offer(&world, "baz", "1.0", ""));
    world.lock(&[("bar==2.1", &[&bar]), ("baz==1.0", &[&baz])]);
    world.approve().await.unwrap();
    assert!(closure(&world.dir(), true, None).unwrap().is_closed());
    revoke(&world.dir(), "baz").unwrap();
    assert_eq!(said(&closure(&world.dir(), true, None).unwrap()), ["Run baz (of foo): Unsigned"]);
}

#[tokio::test]
async fn only_what_an_approval_concerns_is_looked_at_and_everything_by_the_command() {
    let world = World::new().await;
    let foo = offer(&world, "foo", "1.0", "Requires-Dist: gone\n");
    world.lock(&[("foo==1.0", &[&foo])]);
    world.approve().await.unwrap();
    let bar = offer(&world, "bar", "1.0", "");
    world.lock(&[("bar==1.0", &[&bar])]);
    assert!(world.approve().await.unwrap().closure.is_closed());
    assert_eq!(said(&closure(&world.dir(), true, None).unwrap()), ["Run gone (of foo): Unsigned"]);
    // Approved before, and concerned again.
    world.lock(&[("foo==1.0", &[&foo])]);
    assert!(!world.approve().await.unwrap().closure.is_closed());
}

#[tokio::test]
async fn what_only_an_extra_requires_is_told_where_that_is_asked_for_by_a_lock_or_another_file() {
    let lines = "Provides-Extra: Soc_ks\nRequires-Dist: pysocks; extra == 'soc-ks'\n\
                 Requires-Dist: foo[more]; extra == 'all'\nRequires-Dist: deep; extra == 'more'\n";
    for (pin, expected) in [
        ("foo==1.0", vec![]),
        ("foo[other]==1.0", vec![]),
        ("foo[SOC.KS]==1.0", vec!["Run pysocks (of foo): Unsigned"]),
        // An extra may ask for another one of its own project.
        ("foo[all]==1.0", vec!["Run deep (of foo): Unsigned"]),
    ] {
        let world = World::new().await;
        let foo = offer(&world, "foo", "1.0", lines);
        world.lock(&[(pin, &[&foo])]);
        assert_eq!(said(&world.approve().await.unwrap().closure), expected, "{pin}");
        // What was asked for is remembered.
        assert_eq!(said(&closure(&world.dir(), true, None).unwrap()), expected, "{pin}");
        // Another file that asks for an extra of what was approved before.
        let user = offer(&world, "user", "1.0", "Requires-Dist: foo[soc_ks]>=1\n");
        world.lock(&[("user==1.0", &[&user])]);
        let found = said(&world.approve().await.unwrap().closure);
        assert!(found.contains(&"Run pysocks (of foo): Unsigned".to_owned()), "{pin}: {found:?}");
    }
}

#[tokio::test]
async fn environments_are_kept_and_shown_but_for_those_that_no_approved_file_can_be_in() {
    let world = World::new().await;
    let lines = "Requires-Python: >=3.9\nRequires-Dist: colorama; sys_platform == 'win32'\n\
                 Requires-Dist: old; python_version < '3.8'\nRequires-Dist: always; python_version >= '3.9'\n";
    let any = offer(&world, "foo", "1.0", lines);
    let linux = wheel_saying("bar", "1.0", lines, &[]);
    world.index.add("bar", "/files/bar-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", &linux);
    let windows = wheel_saying("bar", "1.0", lines, &[("x", b"")]);
    world.lock(&[("foo==1.0", &[&any]), ("bar==1.0", &[&linux])]);
    let found = said(&world.approve().await.unwrap().closure);
    assert_eq!(
        found,
        [
            "Run always (of bar): Unsigned",
            "Run always (of foo): Unsigned",
            "Run colorama (of foo, where sys_platform == \"win32\"): Unsigned",
        ]
    );
    // A second wheel of the same METADATA, for the platform that needs it.
    world.index.add("bar", "/files/bar-1.0-cp311-cp311-win_amd64.whl", &windows);
    world.lock(&[("bar==1.0", &[&linux, &windows])]);
    let report = world.approve().await.unwrap();
    assert_eq!(said(&report.closure), ["Run always (of bar): Unsigned", "Run colorama (of bar): Unsigned"]);
}

#[tokio::test]
async fn urls_yanked_files_and_what_is_no_requirement_are_told() {
    let world = World::new().await;
    world.index.yank(&wheel_path("bar", "1.0"));
    let bar = offer(&world, "bar", "1.0", "");
    let lines = "Requires-Dist: bar>=1\nRequires-Dist: bar==1.0\nRequires-Dist: evil @ https://u:secret@files.example/evil.zip\n\
                 Requires-Dist: \u{1b}[2Jx y\n";
    let foo = offer(&world, "foo", "1.0", lines);
    world.lock(&[("foo==1.0", &[&foo]), ("bar==1.0", &[&bar])]);
    let found = world.approve().await.unwrap().closure;
    assert_eq!(
        said(&found),
        ["Run bar>=1 (of foo): OtherVersions([\"1.0\"])", "Run evil @ https://files.example/evil.zip (of foo): Url",]
    );
    let [unknown] = found.unknown.as_slice() else { panic!("{found:?}") };
    assert_eq!(unknown.file, "foo/foo-1.0-py3-none-any.whl");
    assert!(unknown.why.contains("no requirement") && !unknown.why.contains(char::is_control), "{unknown:?}");
}

#[tokio::test]
async fn files_that_require_one_another_in_a_circle_are_closed() {
    let world = World::new().await;
    let foo = offer(&world, "foo", "1.0", "Requires-Dist: bar[x]\nRequires-Dist: foo[y]; extra == 'x'\n");
    let bar = offer(&world, "bar", "1.0", "Requires-Dist: foo[x]; extra == 'x'\n");
    world.lock(&[("foo==1.0", &[&foo]), ("bar==1.0", &[&bar])]);
    assert!(world.approve().await.unwrap().closure.is_closed());
}

#[tokio::test]
async fn what_an_sdist_needs_is_signed_with_it_and_told_without_a_download() {
    let world = World::new().await;
    let info = "Metadata-Version: 2.2\nName: foo\nVersion: 1.0\nRequires-Dist: run-dep\n";
    let pyproject = "[build-system]\nrequires = ['tiny>=1; os_name == \"nt\"']\n";
    let foo = sdist("foo", "1.0", &[("PKG-INFO", info), ("pyproject.toml", pyproject)]);
    let old = sdist("old", "1.0", &[("setup.py", "")]);
    for (project, bytes) in [("foo", &foo), ("old", &old)] {
        offer_sdist(&world, project, bytes);
    }
    world.lock(&[("foo==1.0", &[&foo]), ("old==1.0", &[&old])]);
    let found = world.approve().await.unwrap().closure;
    let expected = [
        "Run run-dep (of foo): Unsigned",
        "Build setuptools>=40.8.0 (of old): Unsigned",
        "Build tiny>=1 (of foo, where os_name == \"nt\"): Unsigned",
    ];
    let mut all = said(&found);
    all.sort_by_key(|line| line.split_once(' ').unwrap().1.to_owned());
    assert_eq!(all, expected);
    world.publish();
    world.server.forget();
    assert_eq!(closure(&world.dir(), true, None).unwrap(), found);
    assert_eq!(said(&closure(&world.dir(), false, None).unwrap()), ["Run run-dep (of foo): Unsigned"]);
    assert!(world.server.targets().is_empty());
    let editor = Editor::open(&world.dir()).unwrap();
    let signed = editor.targets().targets[&"old/old-1.0.tar.gz".parse::<TargetPath>().unwrap()].custom.clone().unwrap();
    assert_eq!(signed["tufgate"]["needs"], serde_json::json!({ "build": ["setuptools>=40.8.0"] }));
}

#[tokio::test]
async fn what_was_not_looked_at_is_said_and_why() {
    let world = World::new().await;
    let foo = offer(&world, "foo", "1.0", "Requires-Dist: bar\n");
    world.index.add("foo", "/files/foo-1.0.tar.gz", b"sdist");
    world.lock(&[("foo==1.0", &[&foo, b"sdist"])]);
    let report = world.approve().await.unwrap();
    assert_eq!(report.approved.len(), 2, "it is approved by its digest");
    let [unknown] = report.closure.unknown.as_slice() else { panic!("{report:?}") };
    assert_eq!(unknown.file, "foo/foo-1.0.tar.gz");
    assert!(unknown.why.contains(".tar.gz"), "{unknown:?}");

    let world = World::new().await;
    let foo = offer(&world, "foo", "1.0", "Requires-Dist: bar\n");
    let sdist = sdist_building_with("foo", "");
    offer_sdist(&world, "foo", &sdist);
    world.lock(&[("foo==1.0", &[&foo, &sdist])]);
    let request = ApproveRequest { trust_lock_hash: true, ..world.request() };
    let found = approve(&request, &Silent).await.unwrap().closure;
    let why: Vec<&str> = found.unknown.iter().map(|unknown| unknown.why.as_str()).collect();
    assert_eq!(why, ["it was approved without being downloaded", "it was approved without being looked into"]);
}

#[tokio::test]
async fn with_build_adds_the_newest_wheels_that_a_build_can_use_and_what_they_need_until_it_is_closed() {
    let world = World::new().await;
    let foo = sdist_building_with("foo", "'tiny>=1,<3', 'old; python_version < \"3\"'");
    offer_sdist(&world, "foo", &foo);
    for version in ["0.9", "1.0", "2.0"] {
        offer(&world, "tiny", version, "Requires-Dist: helper\nRequires-Dist: unused; extra == 'x'\n");
    }
    // A pre-release, a yanked one, one that is too new, one that there is only the source of.
    for version in ["2.2rc1", "2.1", "3.0"] {
        offer(&world, "tiny", version, "");
    }
    world.index.yank(&wheel_path("tiny", "2.1"));
    world.index.add("tiny", "/files/tiny-2.3.tar.gz", b"source");
    offer(&world, "helper", "1.0", "Requires-Dist: tiny\nRequires-Dist: deep==1.0\n");
    let native = wheel_saying("deep", "1.0", "", &[]);
    for platform in ["manylinux_2_17_x86_64", "win_amd64"] {
        world.index.add("deep", &format!("/files/deep-1.0-cp311-cp311-{platform}.whl"), &native);
    }
    offer(&world, "old", "1.0", "");
    world.lock(&[("foo==1.0", &[&foo])]);
    assert_eq!(said(&world.approve().await.unwrap().closure).len(), 2);
    let report = with_build(&world).await;
    assert!(report.closure.is_closed(), "{:?}", report.closure);
    let mut added: Vec<&str> = report.added.iter().map(|added| added.file.as_str()).collect();
    added.sort_unstable();
    assert_eq!(
        added,
        [
            "deep/deep-1.0-cp311-cp311-manylinux_2_17_x86_64.whl",
            "deep/deep-1.0-cp311-cp311-win_amd64.whl",
            "helper/helper-1.0-py3-none-any.whl",
            // Kept, since an sdist of no known Python may be built by any.
            "old/old-1.0-py3-none-any.whl",
            "tiny/tiny-2.0-py3-none-any.whl",
        ]
    );
    let helper = report.added.iter().find(|added| added.file.starts_with("helper")).unwrap();
    assert_eq!((helper.needed_by.as_str(), helper.requirement.as_str()), ("tiny", "helper"));
    world.publish();
    let editor = Editor::open(&world.dir()).unwrap();
    let path: TargetPath = "tiny/tiny-2.0-py3-none-any.whl".parse().unwrap();
    let record = Record::of_custom(editor.targets().targets[&path].custom.as_ref()).unwrap();
    assert_eq!((record.provenance, record.from.as_str()), (Provenance::FirstSeen, "build of foo 1.0"));
    drop(editor);
    // Nothing more is added, though the index has something newer now.
    offer(&world, "tiny", "2.9", "");
    assert!(with_build(&world).await.added.is_empty());
}

#[tokio::test]
async fn what_only_other_pythons_need_than_those_that_are_meant_is_neither_told_nor_added() {
    let world = World::new().await;
    let foo = sdist_building_with("foo", "'tiny', 'old; python_version == \"3.3\"'");
    offer_sdist(&world, "foo", &foo);
    offer(&world, "tiny", "1.0", "Requires-Dist: backport; python_version < '3.11'\n");
    world.lock(&[("foo==1.0", &[&foo])]);
    let meant = |text: &str| Some(VersionSpecifiers::from_str(text).unwrap());
    let request = ApproveRequest { with_build: true, for_python: meant(">=3.11"), ..world.request() };
    let report = approve(&request, &Silent).await.unwrap();
    assert_eq!(report.added.len(), 1, "{:?}", report.added);
    assert!(closure(&world.dir(), true, meant(">=3.11")).unwrap().is_closed());
    assert_eq!(
        said(&closure(&world.dir(), true, meant(">=3.9,<3.12")).unwrap()),
        ["Build backport (of tiny, where python_version < \"3.11\"): Unsigned"]
    );
    assert_eq!(closure(&world.dir(), true, None).unwrap().uncovered.len(), 2);
}

#[tokio::test]
async fn what_a_build_tool_needs_is_added_though_the_tool_was_approved_before() {
    let world = World::new().await;
    let tiny = offer(&world, "tiny", "1.0", "Requires-Dist: helper\n");
    world.lock(&[("tiny==1.0", &[&tiny])]);
    world.approve().await.unwrap();
    let foo = sdist_building_with("foo", "'tiny'");
    offer_sdist(&world, "foo", &foo);
    offer(&world, "helper", "1.0", "");
    world.lock(&[("foo==1.0", &[&foo])]);
    let report = with_build(&world).await;
    assert!(report.closure.is_closed());
    assert_eq!(report.added.len(), 1);
    assert_eq!(report.added[0].file, "helper/helper-1.0-py3-none-any.whl");
}

#[tokio::test]
async fn two_builds_that_need_different_versions_get_one_that_both_can_use_or_one_each() {
    for (first, second, expected) in [
        ("tiny>=1", "tiny<3", vec!["tiny/tiny-2.0-py3-none-any.whl"]),
        ("tiny<2", "tiny>=3", vec!["tiny/tiny-1.0-py3-none-any.whl", "tiny/tiny-3.0-py3-none-any.whl"]),
    ] {
        let world = World::new().await;
        for version in ["1.0", "2.0", "3.0"] {
            offer(&world, "tiny", version, "");
        }
        let sdists = [("foo", first), ("bar", second)].map(|(project, requires)| {
            let bytes = sdist_building_with(project, &format!("'{requires}'"));
            offer_sdist(&world, project, &bytes);
            bytes
        });
        world.lock(&[("foo==1.0", &[&sdists[0]]), ("bar==1.0", &[&sdists[1]])]);
        let mut added: Vec<String> = with_build(&world).await.added.into_iter().map(|added| added.file).collect();
        added.sort_unstable();
        assert_eq!(added, expected);
    }
}

#[tokio::test]
async fn a_build_requirement_that_cannot_be_had_is_said_and_nothing_is_staged() {
    type Why = fn(&NoBuild) -> bool;
    let cases: [(&str, Why, &str); 5] = [
        ("absent", |why| matches!(why, NoBuild::UnknownProject { .. }), "no such project"),
        ("tiny>=9", |why| matches!(why, NoBuild::NoVersion { .. }), "no wheel of a version"),
        ("tiny==1.5.*", |why| matches!(why, NoBuild::NoVersion { .. }), "only yanked"),
        ("tiny>2", |why| matches!(why, NoBuild::NoVersion { .. }), "pre-releases"),
        ("tiny @ https://files.example/tiny.zip", |why| *why == NoBuild::Url, "URL"),
    ];
    for (requirement, is_why, words) in cases {
        let world = World::new().await;
        for version in ["1.0", "1.5.1", "3.0a1"] {
            offer(&world, "tiny", version, "");
        }
        world.index.yank(&wheel_path("tiny", "1.5.1"));
        // The first of two can be had, which must not help.
        let foo = sdist_building_with("foo", &format!("'tiny<=1', '{requirement}'"));
        offer_sdist(&world, "foo", &foo);
        world.lock(&[("foo==1.0", &[&foo])]);
        let error = world.refused_as(&ApproveRequest { with_build: true, ..world.request() }).await;
        assert!(matches!(&error, ApproveError::Build { why, .. } if is_why(why)), "{requirement}: {error}");
        assert!(error.to_string().contains(words) && error.fault() == Fault::NotFound, "{error}");
    }
}

#[tokio::test]
async fn what_the_rules_do_not_let_through_is_not_added_for_a_build() {
    let world = World::new().await;
    let foo = sdist_building_with("foo", "'tiny'");
    offer_sdist(&world, "foo", &foo);
    offer(&world, "tiny", "1.0", "");
    world.lock(&[("foo==1.0", &[&foo])]);
    let rules = |names: &[&str]| ApprovalRules {
        only_projects: names.iter().map(|name| name.parse().unwrap()).collect(),
        ..ApprovalRules::default()
    };
    let request = |names: &[&str]| ApproveRequest { with_build: true, rules: rules(names), ..world.request() };
    let error = world.refused_as(&request(&["foo"])).await;
    assert!(error.to_string().contains("rules let through: tiny-1.0-py3-none-any.whl: tiny is not among"), "{error}");
    assert_eq!(approve(&request(&["foo", "tiny"]), &Silent).await.unwrap().added.len(), 1);
}

#[tokio::test]
async fn folders_and_projects_are_looked_at_as_lock_files_are_and_a_build_is_had_from_the_index() {
    let world = World::new().await;
    let folder = world.folder.path().join("dist");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("foo-1.0.tar.gz"), sdist_building_with("foo", "'tiny'")).unwrap();
    fs::write(folder.join("bar-1.0-py3-none-any.whl"), wheel_saying("bar", "1.0", "Requires-Dist: baz\n", &[]))
        .unwrap();
    offer(&world, "tiny", "1.0", "");
    offer(&world, "more", "1.0", "Requires-Dist: other\n");
    let request = ApproveRequest { locks: Vec::new(), folders: vec![folder], ..world.request() };
    let found = approve(&request, &Silent).await.unwrap().closure;
    assert_eq!(said(&found), ["Run baz (of bar): Unsigned", "Build tiny (of foo): Unsigned"]);
    assert!(world.server.targets().is_empty(), "no index is asked");
    let report = approve(&ApproveRequest { with_build: true, ..request }, &Silent).await.unwrap();
    assert_eq!(said(&report.closure), ["Run baz (of bar): Unsigned"]);
    assert_eq!(report.approved, ["tiny/tiny-1.0-py3-none-any.whl"]);
    assert_eq!(report.index_url, report.recorded_index, "the index that was asked is the repository's own");
    assert!(report.index_url.is_some() && report.file_bases == [world.server.url("files/").to_string()], "{report:?}");
    let projects = vec!["more".parse().unwrap()];
    let request = ApproveRequest { locks: Vec::new(), projects, ..world.request() };
    assert_eq!(said(&approve(&request, &Silent).await.unwrap().closure), ["Run other (of more): Unsigned"]);
}

#[tokio::test]
async fn an_index_that_gives_other_bytes_of_a_build_requirement_than_it_lists_is_an_alarm() {
    let world = World::new().await;
    let foo = sdist_building_with("foo", "'tiny'");
    offer_sdist(&world, "foo", &foo);
    let listed = wheel("tiny", "1.0", &[]);
    let evil = wheel("tiny", "1.0", &[("e", b"")]);
    let path = wheel_path("tiny", "1.0");
    world.index.add("tiny", &path, &evil);
    world.index.list("tiny", &path, &Digest::sha256(&listed).to_hex(), Some(evil.len()));
    world.lock(&[("foo==1.0", &[&foo])]);
    let error = world.refused_as(&ApproveRequest { with_build: true, ..world.request() }).await;
    assert!(matches!(&error, ApproveError::WrongBytes { filename, .. } if filename.starts_with("tiny")), "{error}");
}
