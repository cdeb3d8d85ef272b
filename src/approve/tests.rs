//! Approvals from lock file to staged change, against an index that may lie.

mod sources;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use zip::{ZipWriter, write::SimpleFileOptions};

use super::{pip_config::Pip, *};
use crate::{
    base::{ByteSize, Digest, Fault, SystemClock},
    repository::{self, Editor, InitOptions},
    simple::Listing,
    tuf::{Chunks, TargetPath},
    upstream::{
        Client, Environment, Settings,
        testserver::{Received, Step, TestServer, head, reply},
    },
};

/// What the index serves: pages and files by path.
#[derive(Clone, Default)]
pub(super) struct Index(Arc<Mutex<Content>>);

/// An entry of a project's page: file name, URL path, digest, length.
type Entry = (String, String, String, Option<usize>);

#[derive(Default)]
struct Content {
    pages: BTreeMap<String, Vec<Entry>>,
    files: BTreeMap<String, Vec<Step>>,
    html: bool,
    /// What all projects are said to be (PEP 792).
    status: Option<&'static str>,
    yanked: BTreeSet<String>,
}

impl Index {
    /// Lists and serves a file.
    pub(super) fn add(&self, project: &str, path: &str, bytes: &[u8]) {
        self.list(project, path, &Digest::sha256(bytes).to_hex(), Some(bytes.len()));
        self.serve(path, reply(200, &[("etag", "\"e\"")], bytes));
    }

    pub(super) fn list(&self, project: &str, path: &str, sha256: &str, size: Option<usize>) {
        let filename = path.rsplit('/').next().unwrap().to_owned();
        let entry = (filename, path.to_owned(), sha256.to_owned(), size);
        let mut content = self.0.lock().unwrap();
        let page = content.pages.entry(project.to_owned()).or_default();
        page.retain(|(_, known, ..)| known != path);
        page.push(entry);
    }

    pub(super) fn yank(&self, path: &str) {
        self.0.lock().unwrap().yanked.insert(path.to_owned());
    }

    pub(super) fn serve(&self, path: &str, steps: Vec<Step>) {
        self.0.lock().unwrap().files.insert(path.to_owned(), steps);
    }

    fn answer(&self, request: &Received) -> Vec<Step> {
        let content = self.0.lock().unwrap();
        if let Some(steps) = content.files.get(&request.target) {
            return steps.clone();
        }
        let project = request.target.strip_prefix("/simple/").and_then(|rest| rest.strip_suffix('/'));
        match project.and_then(|project| content.pages.get(project)) {
            None => reply(404, &[], b"no"),
            Some(page) if content.html => {
                reply(200, &[("content-type", "text/html")], html(page, content.status).as_bytes())
            }
            Some(page) => {
                let kind = ("content-type", "application/vnd.pypi.simple.v1+json");
                reply(200, &[kind], json(project.unwrap(), page, &content.yanked, content.status).as_bytes())
            }
        }
    }
}

fn json(project: &str, page: &[Entry], yanked: &BTreeSet<String>, status: Option<&str>) -> String {
    let files: Vec<_> = page
        .iter()
        .map(|(filename, path, sha256, size)| {
            let hashes =
                if sha256.is_empty() { serde_json::json!({}) } else { serde_json::json!({ "sha256": sha256 }) };
            serde_json::json!({ "filename": filename, "url": path, "hashes": hashes, "size": size,
                "requires-python": ">=3.9", "yanked": yanked.contains(path), "upload-time": "2026-01-02T03:04:05Z" })
        })
        .collect();
    let mut page = serde_json::json!({ "meta": { "api-version": "1.4" }, "name": project, "files": files });
    if let Some(status) = status {
        page["project-status"] = serde_json::json!({ "status": status, "reason": "malware" });
    }
    page.to_string()
}

fn html(page: &[Entry], status: Option<&str>) -> String {
    let link = |(filename, path, sha256, _): &Entry| format!("<a href=\"{path}#sha256={sha256}\">{filename}</a>");
    let status = status.map(|status| format!("<meta name=\"pypi:project-status\" content=\"{status}\">"));
    let head = status.unwrap_or_default();
    format!("<!DOCTYPE html><html><head>{head}</head><body>{}</body></html>", page.iter().map(link).collect::<String>())
}

pub(super) fn wheel(project: &str, version: &str, more: &[(&str, &[u8])]) -> Vec<u8> {
    wheel_saying(project, version, "Requires-Python: >=3.10\n", more)
}

/// A wheel with more lines in its METADATA.
pub(super) fn wheel_saying(project: &str, version: &str, lines: &str, more: &[(&str, &[u8])]) -> Vec<u8> {
    let metadata = format!("Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n{lines}");
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let path = format!("{project}-{version}.dist-info/METADATA");
    for (name, bytes) in [(path.as_str(), metadata.as_bytes())].iter().chain(more) {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) index: Index,
    pub(super) server: TestServer,
}

const FOO: &str = "/files/f0/foo-1.0-py3-none-any.whl";
const SDIST: &str = "/files/0d/foo-1.0.tar.gz";

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::default();
        let server = TestServer::start({
            let index = index.clone();
            move |request, _| index.answer(request)
        })
        .await;
        repository::init(&folder.path().join("repository"), &InitOptions::default(), &SystemClock).unwrap();
        Self { folder, index, server }
    }

    /// With a wheel and an sdist of foo 1.0, and a lock that pins both.
    async fn with_foo() -> Self {
        let world = Self::new().await;
        let (wheel, sdist) = (wheel("foo", "1.0", &[]), b"sdist".to_vec());
        world.index.add("foo", FOO, &wheel);
        world.index.add("foo", SDIST, &sdist);
        world.lock(&[("foo==1.0", &[&wheel, &sdist])]);
        world
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub(super) fn lock(&self, pins: &[(&str, &[&[u8]])]) {
        let mut text = String::new();
        for (pin, files) in pins {
            text.push_str(pin);
            for bytes in *files {
                text.push_str(&format!(" --hash=sha256:{}", Digest::sha256(bytes).to_hex()));
            }
            text.push('\n');
        }
        fs::write(self.folder.path().join("requirements.txt"), text).unwrap();
    }

    pub(super) fn request(&self) -> ApproveRequest {
        let settings = Settings { retries: 0, ..Settings::default() };
        let client = Client::new(&settings, &Environment::new([])).unwrap();
        ApproveRequest {
            locks: vec![self.folder.path().join("requirements.txt")],
            index_url: Some(self.server.url("simple").to_string()),
            pip: Pip::command(Vec::new()),
            ..ApproveRequest::new(self.dir(), client, SystemClock::shared())
        }
    }

    pub(super) async fn approve(&self) -> Result<ApproveReport, ApproveError> {
        approve(&self.request(), &Silent).await
    }

    /// Approves what must be refused, and checks that nothing changed.
    pub(super) async fn refused(&self) -> ApproveError {
        self.refused_as(&self.request()).await
    }

    pub(super) async fn refused_as(&self, request: &ApproveRequest) -> ApproveError {
        let before = contents(&self.dir());
        let error = approve(request, &Silent).await.unwrap_err();
        drop(Editor::open(&self.dir()).unwrap());
        // What was downloaded waits for the next try, and is nothing that is staged.
        let _ = fs::remove_dir_all(self.dir().join(".downloads"));
        assert_eq!(contents(&self.dir()), before, "{error}");
        error
    }

    fn listing(&self, project: &str) -> Listing {
        let editor = Editor::open(&self.dir()).unwrap();
        let project = project.parse().unwrap();
        let bytes = editor.stored_bytes(&listing_target(&project).unwrap()).unwrap().unwrap();
        Listing::parse(&bytes, &project).unwrap()
    }

    pub(super) fn publish(&self) {
        repository::publish(&self.dir(), &SystemClock).unwrap();
    }
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if path.extension().is_none_or(|extension| extension != "lock") {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[tokio::test]
async fn pinned_files_their_metadata_and_a_listing_are_staged_and_published() {
    let world = World::with_foo().await;
    let report = world.approve().await.unwrap();
    assert_eq!(report.approved, ["foo/foo-1.0-py3-none-any.whl", "foo/foo-1.0.tar.gz"]);
    assert_eq!(
        report.change.added,
        [
            "foo/foo-1.0-py3-none-any.whl",
            "foo/foo-1.0-py3-none-any.whl.metadata",
            "foo/foo-1.0.tar.gz",
            "simple/foo/index.json"
        ]
    );
    assert_eq!(report.file_bases, [world.server.url("files/").to_string()]);
    assert_eq!((report.metadata, report.known, report.missing.len()), (1, 0, 0));
    world.publish();
    let listing = world.listing("foo");
    let listed = listing.file("foo-1.0-py3-none-any.whl").unwrap();
    assert_eq!((listed.base, listed.path.as_str()), (0, "f0/foo-1.0-py3-none-any.whl"));
    assert_eq!(listed.requires_python.as_deref(), Some(">=3.10"), "what the wheel says, not the index");
    assert_eq!(listing.file("foo-1.0.tar.gz").unwrap().requires_python.as_deref(), Some(">=3.9"));
    let metadata = b"Metadata-Version: 2.1\nName: foo\nVersion: 1.0\nRequires-Python: >=3.10\n";
    assert_eq!(listed.core_metadata.as_ref().unwrap().sha256, Digest::sha256(metadata));
    let editor = Editor::open(&world.dir()).unwrap();
    let path = file_target(&"foo".parse().unwrap(), "foo-1.0.tar.gz").unwrap();
    let record = Record::of_custom(editor.targets().targets[&path].custom.as_ref()).unwrap();
    assert_eq!((record.provenance, record.digest), (Provenance::Locked, DigestSource::Downloaded));
    assert_eq!(record.from, "requirements.txt");
}

#[tokio::test]
async fn a_second_approval_downloads_nothing_that_was_approved() {
    let world = World::with_foo().await;
    world.approve().await.unwrap();
    world.publish();
    world.server.forget();
    let report = world.approve().await.unwrap();
    assert_eq!((report.known, report.approved.len()), (2, 0));
    assert!(report.change.is_empty());
    assert_eq!(world.server.targets(), ["/simple/foo/"]);
}

#[tokio::test]
async fn a_new_version_joins_the_listing_of_the_old_one() {
    let world = World::with_foo().await;
    world.approve().await.unwrap();
    world.publish();
    let new = wheel("foo", "2.0", &[]);
    world.index.add("foo", "/files/f2/foo-2.0-py3-none-any.whl", &new);
    world.lock(&[("foo==2.0", &[&new])]);
    let report = world.approve().await.unwrap();
    assert_eq!(report.approved, ["foo/foo-2.0-py3-none-any.whl"]);
    assert_eq!(report.change.changed, ["simple/foo/index.json"]);
    assert_eq!(world.listing("foo").files().len(), 3);
}

#[tokio::test]
async fn bytes_other_than_the_locked_ones_are_an_alarm_and_nothing_is_staged() {
    let world = World::with_foo().await;
    world.index.serve(SDIST, reply(200, &[], b"edist"));
    let error = world.refused().await;
    assert!(matches!(&error, ApproveError::WrongBytes { filename, .. } if filename == "foo-1.0.tar.gz"));
    assert_eq!(error.fault(), Fault::Refused);
}

#[tokio::test]
async fn a_longer_body_is_refused() {
    let world = World::with_foo().await;
    world.index.serve(SDIST, reply(200, &[], b"sdist and more"));
    let error = world.refused().await;
    assert!(matches!(error, ApproveError::WrongLength { expected: 5, found: 14, .. }), "{error}");
    assert_eq!(error.fault(), Fault::Refused);
}

#[tokio::test]
async fn an_index_that_shows_the_locked_version_under_another_digest_is_an_alarm() {
    let world = World::new().await;
    let evil = wheel("foo", "1.0", &[("evil.py", b"")]);
    world.index.add("foo", FOO, &evil);
    world.lock(&[("foo==1.0", &[&wheel("foo", "1.0", &[])])]);
    let error = world.refused().await;
    assert!(matches!(error, ApproveError::OtherDigest { .. }));
    assert_eq!(error.fault(), Fault::Refused);
    assert_eq!(world.server.targets(), ["/simple/foo/"], "no file is asked for");
}

#[tokio::test]
async fn a_lock_and_an_index_that_change_a_known_file_together_are_an_alarm() {
    let world = World::with_foo().await;
    world.approve().await.unwrap();
    world.publish();
    let evil = wheel("foo", "1.0", &[("evil.py", b"")]);
    world.index.add("foo", FOO, &evil);
    world.lock(&[("foo==1.0", &[&evil])]);
    let error = world.refused().await;
    assert!(matches!(&error, ApproveError::Changed { path, .. } if path == "foo/foo-1.0-py3-none-any.whl"));
    assert_eq!(error.fault(), Fault::Refused);
}

#[tokio::test]
async fn a_transfer_that_breaks_off_is_taken_up_again() {
    let world = World::with_foo().await;
    let fields = [("content-length".to_owned(), "5".to_owned()), ("etag".to_owned(), "\"e\"".to_owned())];
    let index = world.index.clone();
    index.serve(SDIST, vec![Step::Send(head(200, &fields)), Step::Send(b"sd".to_vec()), Step::Close]);
    let approving = tokio::spawn({
        let request = world.request();
        async move { approve(&request, &Silent).await }
    });
    while !world.server.targets().iter().any(|target| target == SDIST) {
        tokio::task::yield_now().await;
    }
    // An upstream that cannot resume starts anew.
    index.serve(SDIST, reply(200, &[], b"sdist"));
    assert_eq!(approving.await.unwrap().unwrap().approved.len(), 2);
}

#[tokio::test]
async fn a_project_or_version_that_the_index_lacks_is_said_and_nothing_is_staged() {
    let world = World::with_foo().await;
    world.lock(&[("bar==1.0", &[b"x"])]);
    let error = world.refused().await;
    assert!(matches!(&error, ApproveError::UnknownProject { project, .. } if project.as_str() == "bar"));
    assert_eq!(error.fault(), Fault::NotFound);
    world.lock(&[("foo==9.0", &[b"x"])]);
    assert!(matches!(world.refused().await, ApproveError::UnknownVersion { .. }));
}

#[tokio::test]
async fn a_locked_file_that_the_index_lacks_is_reported_and_the_rest_is_approved() {
    let world = World::with_foo().await;
    let wheel = wheel("foo", "1.0", &[]);
    world.lock(&[("foo==1.0", &[&wheel, b"gone"])]);
    let report = world.approve().await.unwrap();
    assert_eq!(report.approved, ["foo/foo-1.0-py3-none-any.whl"]);
    assert_eq!(report.missing[0].sha256, Digest::sha256(b"gone").to_hex());
}

#[tokio::test]
async fn with_the_locks_hash_trusted_no_file_is_asked_for_and_no_metadata_signed() {
    let world = World::with_foo().await;
    let request = ApproveRequest { trust_lock_hash: true, ..world.request() };
    let report = approve(&request, &Silent).await.unwrap();
    assert_eq!((report.approved.len(), report.metadata, report.downloaded), (2, 0, 0));
    assert_eq!(world.server.targets(), ["/simple/foo/"]);
    assert!(world.listing("foo").files().iter().all(|file| file.core_metadata.is_none()));
    let editor = Editor::open(&world.dir()).unwrap();
    let custom = editor.targets().targets.values().find_map(|file| file.custom.clone());
    assert_eq!(Record::of_custom(custom.as_ref()).unwrap().digest, DigestSource::Lock);
}

#[tokio::test]
async fn an_index_that_speaks_html_and_knows_no_lengths_is_enough() {
    let world = World::with_foo().await;
    world.index.0.lock().unwrap().html = true;
    assert_eq!(world.approve().await.unwrap().approved.len(), 2);
    assert_eq!(world.listing("foo").file("foo-1.0.tar.gz").unwrap().size, 5);
}

#[tokio::test]
async fn an_index_that_claims_a_huge_file_is_refused_before_a_byte_of_any_is_asked_for() {
    let world = World::with_foo().await;
    let sha256 = Digest::sha256(b"sdist").to_hex();
    world.index.list("foo", SDIST, &sha256, Some((8 << 30) + 1));
    let error = world.refused().await;
    assert!(matches!(error, ApproveError::TooLarge { .. }) && error.fault() == Fault::Refused, "{error}");
    assert!(error.to_string().contains("8GiB"), "{error}");
    assert_eq!(world.server.targets(), ["/simple/foo/"]);
}

#[tokio::test]
async fn a_length_that_a_lock_file_gives_is_the_bound() {
    for (claimed, locked) in [(6, 5), (u64::MAX, 5)] {
        let world = World::with_foo().await;
        let sha256 = Digest::sha256(b"sdist").to_hex();
        world.index.list("foo", SDIST, &sha256, usize::try_from(claimed).ok());
        let lock = format!(
            "lock-version = \"1.0\"\ncreated-by = \"test\"\n[[packages]]\nname = \"foo\"\nversion = \"1.0\"\n\
             [packages.sdist]\nname = \"foo-1.0.tar.gz\"\nurl = \"https://files.example/foo-1.0.tar.gz\"\n\
             size = {locked}\nhashes = {{ sha256 = \"{sha256}\" }}\n"
        );
        let path = world.folder.path().join("pylock.toml");
        fs::write(&path, lock).unwrap();
        let request = ApproveRequest { locks: vec![path], ..world.request() };
        let error = approve(&request, &Silent).await.unwrap_err();
        assert!(matches!(error, ApproveError::WrongLength { expected: 5, .. }), "{error}");
        assert_eq!(world.server.targets(), ["/simple/foo/"]);
    }
}

#[tokio::test]
async fn without_a_length_the_locks_hash_cannot_be_trusted() {
    let world = World::with_foo().await;
    world.index.0.lock().unwrap().html = true;
    let request = ApproveRequest { trust_lock_hash: true, ..world.request() };
    let error = approve(&request, &Silent).await.unwrap_err();
    assert!(matches!(error, ApproveError::NoLength { .. }) && error.is_usage());
}

#[tokio::test]
async fn a_wheel_that_readers_read_differently_is_refused() {
    let world = World::new().await;
    let two = wheel("foo", "1.0", &[("other-1.0.dist-info/METADATA", b"Name: other\n")]);
    world.index.add("foo", FOO, &two);
    world.lock(&[("foo==1.0", &[&two])]);
    let error = world.refused().await;
    assert!(matches!(error, ApproveError::Wheel { .. }));
    assert_eq!(error.fault(), Fault::Refused);
}

#[tokio::test]
async fn digests_of_chunks_are_signed_beside_the_record_where_a_file_has_chunks() {
    let world = World::with_foo().await;
    let large: Vec<u8> = (0..70_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    world.index.add("foo", "/files/9a/foo-2.0.tar.gz", &large);
    world.lock(&[("foo==2.0", &[&large])]);
    for store in [false, true] {
        let request = ApproveRequest { chunks: Some(ByteSize::kib(16)), store, ..world.request() };
        approve(&request, &Silent).await.unwrap();
        let editor = Editor::open(&world.dir()).unwrap();
        let path: TargetPath = "foo/foo-2.0.tar.gz".parse().unwrap();
        let signed = &editor.targets().targets[&path];
        assert!(Record::of_custom(signed.custom.as_ref()).is_some(), "the record stands beside them");
        let chunks = Chunks::of_custom(signed.custom.as_ref(), signed.length);
        let chunks = chunks.signed().unwrap();
        assert_eq!((chunks.count(), chunks.at(65_536)), (5, Some((4_464, Digest::sha256(&large[65_536..])))));
        drop(editor);
        revoke(&world.dir(), "foo==2.0").unwrap();
    }
    // A file of one chunk has none.
    world.lock(&[("foo==1.0", &[b"sdist"])]);
    approve(&ApproveRequest { chunks: Some(ByteSize::kib(16)), ..world.request() }, &Silent).await.unwrap();
    let editor = Editor::open(&world.dir()).unwrap();
    let sdist: TargetPath = "foo/foo-1.0.tar.gz".parse().unwrap();
    let custom = editor.targets().targets[&sdist].custom.clone();
    assert_eq!(Chunks::of_custom(custom.as_ref(), 5), Chunks::Unsigned);
    let error =
        approve(&ApproveRequest { chunks: Some(ByteSize::kib(1)), ..world.request() }, &Silent).await.unwrap_err();
    assert!(matches!(error, ApproveError::Chunks(_)) && error.is_usage(), "{error}");
}

#[tokio::test]
async fn stored_files_are_published_under_their_digest() {
    let world = World::with_foo().await;
    approve(&ApproveRequest { store: true, ..world.request() }, &Silent).await.unwrap();
    world.publish();
    let sha256 = Digest::sha256(b"sdist").to_hex();
    let stored = world.dir().join(format!("published/targets/foo/{sha256}.foo-1.0.tar.gz"));
    assert_eq!(fs::read(stored).unwrap(), b"sdist");
}

#[tokio::test]
async fn a_file_outside_the_base_shortens_it_and_all_listings_follow() {
    let world = World::with_foo().await;
    world.approve().await.unwrap();
    world.publish();
    let bar = wheel("bar", "1.0", &[]);
    world.index.add("bar", "/elsewhere/bar-1.0-py3-none-any.whl", &bar);
    world.lock(&[("bar==1.0", &[&bar])]);
    let report = world.approve().await.unwrap();
    assert_eq!(report.file_bases, [world.server.url("/").to_string()]);
    assert_eq!(world.listing("foo").file("foo-1.0.tar.gz").unwrap().path.as_str(), "files/0d/foo-1.0.tar.gz");
    let bar = world.listing("bar");
    assert_eq!(bar.files()[0].path.as_str(), "elsewhere/bar-1.0-py3-none-any.whl");
}

#[tokio::test]
async fn a_revoked_version_leaves_targets_metadata_and_listing() {
    let world = World::with_foo().await;
    world.approve().await.unwrap();
    world.publish();
    let report = revoke(&world.dir(), "foo-1.0-py3-none-any.whl").unwrap();
    assert_eq!(report.revoked, ["foo/foo-1.0-py3-none-any.whl"]);
    assert_eq!(report.change.removed, ["foo/foo-1.0-py3-none-any.whl", "foo/foo-1.0-py3-none-any.whl.metadata"]);
    assert_eq!(world.listing("foo").files().len(), 1);
    world.publish();
    let report = revoke(&world.dir(), "Foo==1").unwrap();
    assert_eq!(report.change.removed, ["foo/foo-1.0.tar.gz", "simple/foo/index.json"]);
    world.publish();
    for nothing in ["foo", "foo==1.0", "foo-1.0.tar.gz", "../x"] {
        let error = revoke(&world.dir(), nothing).unwrap_err();
        assert!(matches!(error, ApproveError::NothingToRevoke { .. }) && error.fault() == Fault::NotFound);
    }
}

#[tokio::test]
async fn a_lock_without_hashes_is_a_mistake_of_usage_that_says_what_to_do() {
    let world = World::with_foo().await;
    fs::write(world.folder.path().join("requirements.txt"), "foo==1.0\n").unwrap();
    let error = world.refused().await;
    assert!(matches!(error, ApproveError::NothingPinned { .. }) && error.is_usage());
    assert!(error.to_string().contains("has no hash"), "{error}");
    assert!(world.server.requests().is_empty());
}

#[tokio::test]
async fn a_link_into_the_file_system_is_not_followed() {
    let world = World::with_foo().await;
    world.index.list("foo", "file:///etc/foo-1.0.tar.gz", &Digest::sha256(b"other").to_hex(), Some(5));
    world.lock(&[("foo==1.0", &[b"other"])]);
    let error = world.refused().await;
    // The page's reader drops such a link, or the approval does.
    assert!(matches!(error, ApproveError::Link { .. } | ApproveError::OtherDigest { .. }), "{error}");
}
