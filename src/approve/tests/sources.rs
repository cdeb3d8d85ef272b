//! Folders, projects of an index, and rules.

use super::*;
use crate::{repository::ApprovalRules, simple::STORED};

impl World {
    /// Lays a file into a folder beside the repository.
    fn lay(&self, folder: &str, filename: &str, bytes: &[u8]) -> PathBuf {
        let folder = self.folder.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(filename), bytes).unwrap();
        folder
    }

    /// A request that names folders alone.
    fn folders(&self, folders: &[&str]) -> ApproveRequest {
        let folders = folders.iter().map(|folder| self.folder.path().join(folder)).collect();
        ApproveRequest { locks: Vec::new(), folders, index_url: None, ..self.request() }
    }

    /// A request that names projects alone.
    fn projects(&self, ranges: &[&str]) -> ApproveRequest {
        let projects = ranges.iter().map(|range| range.parse().unwrap()).collect();
        ApproveRequest { locks: Vec::new(), projects, ..self.request() }
    }

    /// Approves what must be refused, and checks that nothing is staged.
    async fn refuses(&self, request: &ApproveRequest) -> ApproveError {
        let before = contents(&self.dir().join("staged"));
        let error = approve(request, &Silent).await.unwrap_err();
        assert_eq!(contents(&self.dir().join("staged")), before, "{error}");
        error
    }

    fn record(&self, path: &str) -> Record {
        let editor = Editor::open(&self.dir()).unwrap();
        let file = editor.target(&path.parse().unwrap()).unwrap().unwrap();
        Record::of_custom(file.custom.as_ref()).unwrap()
    }
}

#[tokio::test]
async fn files_of_a_folder_are_stored_with_their_metadata_and_listed_as_stored() {
    let world = World::new().await;
    world.lay("wheels", "foo-1.0+local.1-py3-none-any.whl", &wheel("foo", "1.0+local.1", &[]));
    world.lay("wheels/below", "foo-1.0.tar.gz", b"sdist");
    let report = approve(&world.folders(&["wheels"]), &Silent).await.unwrap();
    assert_eq!(report.approved, ["foo/foo-1.0+local.1-py3-none-any.whl", "foo/foo-1.0.tar.gz"]);
    assert_eq!((report.index_url, report.metadata), (None, 1));
    world.publish();
    let listing = world.listing("foo");
    let listed = listing.file("foo-1.0+local.1-py3-none-any.whl").unwrap();
    assert_eq!((listed.base, listed.requires_python.as_deref()), (STORED, Some(">=3.10")));
    let sha256 = Digest::sha256(b"sdist").to_hex();
    let stored = world.dir().join(format!("published/targets/foo/{sha256}.foo-1.0.tar.gz"));
    assert_eq!(fs::read(stored).unwrap(), b"sdist");
    let record = world.record("foo/foo-1.0.tar.gz");
    assert_eq!((record.provenance, record.digest), (Provenance::FirstSeen, DigestSource::Folder));
    assert_eq!(record.from, "wheels");
    let again = approve(&world.folders(&["wheels"]), &Silent).await.unwrap();
    assert!(again.known == 2 && again.change.is_empty());
    assert!(world.server.requests().is_empty());
}

#[tokio::test]
async fn an_sdist_of_a_folder_is_listed_for_the_pythons_that_it_says() {
    let world = World::new().await;
    let info = b"Metadata-Version: 2.2\nName: foo\nVersion: 1.0\nRequires-Python: >=3.11\n";
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_ustar();
    header.set_size(info.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "foo-1.0/PKG-INFO", &info[..]).unwrap();
    let sdist = archive.into_inner().unwrap().finish().unwrap();
    world.lay("wheels", "foo-1.0.tar.gz", &sdist);
    approve(&world.folders(&["wheels"]), &Silent).await.unwrap();
    assert_eq!(world.listing("foo").file("foo-1.0.tar.gz").unwrap().requires_python.as_deref(), Some(">=3.11"));
}

#[tokio::test]
async fn a_lock_beside_a_folder_makes_its_files_locked_and_another_digest_an_alarm() {
    let world = World::with_foo().await;
    let (wheel, sdist) = (wheel("foo", "1.0", &[]), b"sdist");
    world.lay("wheels", "foo-1.0-py3-none-any.whl", &wheel);
    let request = ApproveRequest { locks: world.request().locks, ..world.folders(&["wheels"]) };
    // Whoever trusts the lock's digest still has the folder read.
    let request = ApproveRequest { trust_lock_hash: true, ..request };
    let report = approve(&request, &Silent).await.unwrap();
    assert_eq!((report.approved.len(), report.metadata), (1, 1));
    assert!(world.server.requests().is_empty(), "the version is in the folder");
    let record = world.record("foo/foo-1.0-py3-none-any.whl");
    assert_eq!((record.provenance, record.digest), (Provenance::Locked, DigestSource::Folder));
    assert_eq!(record.from, "requirements.txt");
    world.lock(&[("foo==1.0", &[sdist])]);
    let error = world.refuses(&request).await;
    assert!(matches!(&error, ApproveError::OtherDigest { .. }) && error.fault() == Fault::Refused, "{error}");
}

#[tokio::test]
async fn a_name_of_two_readings_is_taken_where_a_lock_tells_which_and_two_files_of_one_name_are_not() {
    let world = World::new().await;
    world.lay("one", "foo-1-2.tar.gz", b"sdist");
    assert!(matches!(world.refuses(&world.folders(&["one"])).await, ApproveError::NothingNamed { .. }));
    world.lock(&[("foo-1==2", &[b"sdist"])]);
    let request = ApproveRequest { locks: world.request().locks, ..world.folders(&["one"]) };
    assert_eq!(approve(&request, &Silent).await.unwrap().approved, ["foo-1/foo-1-2.tar.gz"]);
    world.lay("one", "bar-1.0.tar.gz", b"one");
    world.lay("two", "bar-1.0.tar.gz", b"two");
    let error = world.refuses(&world.folders(&["one", "two"])).await;
    assert!(matches!(&error, ApproveError::TwoFiles { filename } if filename == "bar-1.0.tar.gz"), "{error}");
    world.lay("two", "bar-1.0.tar.gz", b"one");
    approve(&world.folders(&["one", "two"]), &Silent).await.unwrap();
}

#[tokio::test]
async fn a_wheel_of_a_folder_is_held_to_the_same_rule_as_one_of_an_index() {
    let world = World::new().await;
    world.lay("wheels", "foo-1.0-py3-none-any.whl", b"no zip file");
    for dry_run in [true, false] {
        let error = world.refuses(&ApproveRequest { dry_run, ..world.folders(&["wheels"]) }).await;
        assert!(matches!(error, ApproveError::Wheel { .. }) && error.fault() == Fault::Refused);
    }
}

#[tokio::test]
async fn stored_files_stay_where_they_are_when_a_file_base_becomes_shorter() {
    let world = World::with_foo().await;
    world.lay("wheels", "foo-2.0-py3-none-any.whl", &wheel("foo", "2.0", &[]));
    approve(&world.folders(&["wheels"]), &Silent).await.unwrap();
    world.approve().await.unwrap();
    let bar = wheel("bar", "1.0", &[]);
    world.index.add("bar", "/elsewhere/bar-1.0-py3-none-any.whl", &bar);
    world.lock(&[("bar==1.0", &[&bar])]);
    world.approve().await.unwrap();
    let listing = world.listing("foo");
    let stored = listing.file("foo-2.0-py3-none-any.whl").unwrap();
    assert_eq!((stored.base, stored.path.as_str()), (STORED, "foo-2.0-py3-none-any.whl"));
    assert_eq!(listing.file("foo-1.0.tar.gz").unwrap().path.as_str(), "files/0d/foo-1.0.tar.gz");
}

#[tokio::test]
async fn files_of_a_project_are_first_seen_and_must_have_the_digest_that_the_index_states() {
    let world = World::with_foo().await;
    // Nothing is known of its digest before it is here.
    world.index.list("foo", "/files/0e/foo-1.1.tar.gz", "", None);
    world.index.serve("/files/0e/foo-1.1.tar.gz", reply(200, &[], b"sdist 1.1"));
    let report = approve(&world.projects(&["foo>=1"]), &Silent).await.unwrap();
    assert_eq!(report.approved.len(), 3);
    let record = world.record("foo/foo-1.1.tar.gz");
    assert_eq!((record.provenance, record.digest), (Provenance::FirstSeen, DigestSource::Downloaded));
    assert_eq!(record.from, "foo>=1");
    assert_eq!(
        world.listing("foo").file("foo-1.1.tar.gz").unwrap().digests.sha256(),
        Some(&Digest::sha256(b"sdist 1.1"))
    );
    let of_it = report.files.iter().find(|file| file.filename == "foo-1.1.tar.gz").unwrap();
    assert_eq!((of_it.size, of_it.sha256.as_deref()), (Some(9), Some(&*Digest::sha256(b"sdist 1.1").to_hex())));

    let world = World::with_foo().await;
    world.index.serve(SDIST, reply(200, &[], b"edist"));
    let error = world.refuses(&world.projects(&["foo"])).await;
    assert!(matches!(&error, ApproveError::WrongBytes { words: "is listed by the index with", .. }), "{error}");
    assert_eq!(error.fault(), Fault::Refused);
}

#[tokio::test]
async fn a_project_that_is_unknown_does_not_fit_or_claims_a_huge_file_is_said_before_anything_is_downloaded() {
    let world = World::with_foo().await;
    let unknown = world.refuses(&world.projects(&["nobody"])).await;
    assert!(matches!(unknown, ApproveError::UnknownProject { .. }) && unknown.fault() == Fault::NotFound);
    let error = world.refuses(&world.projects(&["foo>1"])).await;
    assert!(error.to_string().contains("the newest it has are 1.0") && error.fault() == Fault::NotFound, "{error}");
    world.index.list("foo", SDIST, &Digest::sha256(b"sdist").to_hex(), Some((8 << 30) + 1));
    assert!(matches!(world.refuses(&world.projects(&["foo"])).await, ApproveError::TooLarge { .. }));
    let files: Vec<String> = world.server.targets().into_iter().filter(|path| path.starts_with("/files/")).collect();
    assert!(files.is_empty(), "{files:?}");
}

#[tokio::test]
async fn a_quarantined_project_is_refused_whichever_form_the_index_speaks() {
    for html in [false, true] {
        let world = World::with_foo().await;
        world.index.0.lock().unwrap().html = html;
        world.index.0.lock().unwrap().status = Some("quarantined");
        let rules = ApprovalRules { no_quarantined: true, ..ApprovalRules::default() };
        let error = world.refuses(&ApproveRequest { rules: rules.clone(), ..world.request() }).await;
        assert!(error.to_string().contains("quarantined foo") && error.fault() == Fault::Refused, "{error}");
        assert!(matches!(&error, ApproveError::Rules(files) if files.len() == 2), "all files are named: {error}");
        world.index.0.lock().unwrap().status = Some("archived");
        approve(&ApproveRequest { rules, ..world.request() }, &Silent).await.unwrap();
    }
}

#[tokio::test]
async fn files_of_a_project_that_a_rule_excludes_are_left_out_and_an_approval_of_nothing_is_refused() {
    let world = World::with_foo().await;
    let rules = ApprovalRules { only_wheels: true, ..ApprovalRules::default() };
    let report = approve(&ApproveRequest { rules, ..world.projects(&["foo"]) }, &Silent).await.unwrap();
    assert_eq!(report.approved, ["foo/foo-1.0-py3-none-any.whl"]);
    assert_eq!((&*report.excluded[0].filename, report.excluded[0].rule), ("foo-1.0.tar.gz", "--only-wheels"));
    let world = World::with_foo().await;
    let rules = ApprovalRules { min_age: Some(crate::base::Span::days(36_500)), ..ApprovalRules::default() };
    let error = world.refuses(&ApproveRequest { rules, ..world.projects(&["foo"]) }).await;
    assert!(matches!(error, ApproveError::Rules(_)), "{error}");
}

#[tokio::test]
async fn the_sdist_that_a_lock_names_beside_a_wheel_is_left_out_where_only_wheels_count_and_one_alone_is_refused() {
    let rules = ApprovalRules { only_wheels: true, ..ApprovalRules::default() };
    let world = World::with_foo().await;
    // Also where the wheel was approved before.
    for approved in [&["foo/foo-1.0-py3-none-any.whl"][..], &[]] {
        let report = approve(&ApproveRequest { rules: rules.clone(), ..world.request() }, &Silent).await.unwrap();
        assert_eq!(report.approved, approved);
        assert_eq!(report.excluded.len(), 1);
        assert_eq!((&*report.excluded[0].filename, report.excluded[0].rule), ("foo-1.0.tar.gz", "--only-wheels"));
    }
    let world = World::with_foo().await;
    world.lock(&[("foo==1.0", &[b"sdist"])]);
    let error = world.refuses(&ApproveRequest { rules, ..world.request() }).await;
    assert!(matches!(&error, ApproveError::Rules(files) if files.len() == 1), "{error}");
}

#[tokio::test]
async fn a_page_that_has_one_name_with_two_digests_is_refused() {
    let world = World::with_foo().await;
    world.index.add("foo", "/files/other/foo-1.0.tar.gz", b"other bytes");
    let error = world.refuses(&world.projects(&["foo"])).await;
    assert!(matches!(&error, ApproveError::TwoFiles { filename } if filename == "foo-1.0.tar.gz"), "{error}");
}

#[tokio::test]
async fn a_dry_run_raises_the_alarms_that_need_no_download_and_leaves_nothing() {
    let world = World::with_foo().await;
    let before = contents(&world.dir());
    let dry = ApproveRequest { dry_run: true, ..world.request() };
    let report = approve(&dry, &Silent).await.unwrap();
    assert_eq!((report.approved.len(), report.downloaded), (2, 0));
    assert_eq!((contents(&world.dir()), world.server.targets()), (before, vec!["/simple/foo/".to_owned()]));
    let made = world.approve().await.unwrap();
    assert_eq!((report.change, report.file_bases), (made.change, made.file_bases));
    let evil = wheel("foo", "1.0", &[("evil.py", b"")]);
    world.index.add("foo", FOO, &evil);
    world.lock(&[("foo==1.0", &[&evil])]);
    assert!(matches!(world.refuses(&dry).await, ApproveError::Changed { .. }));
}
