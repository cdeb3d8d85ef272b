//! A repository's folder that somebody else has prepared: nothing of it leads outside, and nothing foreign is published.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::*;
use crate::{
    base::{Digest, Fault, SystemClock},
    tuf::TargetPath,
};

/// A repository with a publication that was cut off before its first file, and a folder around it to break out to.
struct Cut {
    outside: tempfile::TempDir,
    dir: PathBuf,
    sha256: String,
}

const CONTENT: &[u8] = b"content";

impl Cut {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        let dir = outside.path().join("repository");
        init(&dir, &InitOptions::default(), &SystemClock).unwrap();
        let mut editor = Editor::open(&dir).unwrap();
        let path = TargetPath::new("foo/bar").unwrap();
        editor.store_target(path, StoredContent::Bytes(CONTENT), None).unwrap();
        editor.save().unwrap();
        drop(editor);
        publish::cut_off(&dir, &SystemClock, 0);
        Self { outside, dir, sha256: Digest::sha256(CONTENT).to_hex() }
    }

    fn record(&self) -> PathBuf {
        self.folder().join("record.json")
    }

    fn folder(&self) -> PathBuf {
        self.dir.join("staged/publication")
    }

    /// The name of a metadata file of the record.
    fn name(&self, number: usize) -> String {
        let record: Value = serde_json::from_slice(&fs::read(self.record()).unwrap()).unwrap();
        record["metadata"][number]["name"].as_str().unwrap().to_owned()
    }

    /// Makes these the bytes of a metadata file, and the record one that knows them.
    fn replace(&self, number: usize, bytes: &[u8]) {
        fs::write(self.folder().join(self.name(number)), bytes).unwrap();
        self.edit(|record| record["metadata"][number]["sha256"] = Digest::sha256(bytes).to_hex().into());
    }

    fn staged(&self) -> PathBuf {
        self.dir.join("staged/files").join(&self.sha256)
    }

    fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut record: Value = serde_json::from_slice(&fs::read(self.record()).unwrap()).unwrap();
        edit(&mut record);
        fs::write(self.record(), record.to_string()).unwrap();
    }

    /// The files below a folder with their bytes, but for locks.
    fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                found.extend(Self::files(&path));
            } else if path.extension().is_none_or(|extension| extension != "lock") {
                found.push((path.clone(), fs::read(&path).unwrap_or_default()));
            }
        }
        found.sort();
        found
    }

    /// Every command that finishes publications refuses this one, and changes nothing anywhere.
    #[track_caller]
    fn assert_refused(&self, what: &str) -> RepositoryError {
        let before = Self::files(self.outside.path());
        let renewed = refresh(&self.dir, &SystemClock, Renewal::Both).unwrap_err();
        let error = publish(&self.dir, &SystemClock).unwrap_err();
        assert_eq!(renewed.to_string(), error.to_string(), "{what}");
        assert_eq!(Self::files(self.outside.path()), before, "{what}: {error}");
        error
    }

    #[track_caller]
    fn assert_foreign(&self, what: &str) {
        let error = self.assert_refused(what);
        assert!(matches!(error, RepositoryError::ForeignRecord { .. }), "{what}: {error}");
        assert_eq!(error.fault(), Fault::Local);
        assert!(error.to_string().contains("publication/record.json"), "{error}");
    }
}

#[test]
fn an_untouched_record_is_finished() {
    let cut = Cut::new();
    assert!(publish(&cut.dir, &SystemClock).unwrap().resumed);
    let stored = cut.dir.join(format!("published/targets/foo/{}.bar", cut.sha256));
    assert_eq!(fs::read(stored).unwrap(), CONTENT);
}

#[test]
fn metadata_under_any_name_but_ours_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    let absolute = outside.path().join("2.targets.json");
    for name in [
        "../../../evil",
        "../2.targets.json",
        absolute.to_str().unwrap(),
        "a/2.targets.json",
        "2.targets.json\0",
        "./2.targets.json",
        "02.targets.json",
        "+2.targets.json",
        "0.root.json",
        "2.timestamp.json",
        "2.other.json",
        "root.json",
        "index.html",
        "",
        ".",
        "..",
    ] {
        let cut = Cut::new();
        cut.edit(|record| record["metadata"][0]["name"] = name.into());
        cut.assert_foreign(name);
    }
    assert!(!absolute.exists());
}

#[test]
fn a_stored_file_goes_to_no_other_place_than_that_of_its_target() {
    let cut = Cut::new();
    let digest = &cut.sha256;
    let outside = cut.outside.path().display().to_string();
    for to in [
        format!("../../{digest}.bar"),
        format!("foo/../{digest}.bar"),
        format!("{outside}/{digest}.bar"),
        format!("foo//{digest}.bar"),
        format!("./foo/{digest}.bar"),
        format!("foo/{digest}.bar/"),
        format!("foo/{digest}.bar\0"),
        format!("foo/{digest}.other"),
        format!("foo/{digest}."),
        format!("foo/{digest}"),
        "foo/bar".to_owned(),
        String::new(),
    ] {
        let cut = Cut::new();
        cut.edit(|record| record["stored"][0]["to"] = to.as_str().into());
        cut.assert_foreign(&to);
    }
}

#[test]
fn a_private_key_named_as_staged_content_is_not_published() {
    let cut = Cut::new();
    let key = fs::read(cut.dir.join("keys/root.pem")).unwrap();
    let upper = cut.sha256.to_uppercase();
    let absolute = cut.dir.join("keys/root.pem").display().to_string();
    for sha256 in ["../../keys/root.pem", absolute.as_str(), "", upper.as_str(), &"0".repeat(64)] {
        let cut = Cut::new();
        cut.edit(|record| record["stored"][0]["sha256"] = sha256.into());
        cut.assert_foreign(sha256);
        cut.edit(|record| record["stored"][0]["to"] = format!("foo/{sha256}.bar").into());
        cut.assert_foreign(sha256);
    }
    for hostile in [true, false] {
        let cut = Cut::new();
        fs::remove_file(cut.staged()).unwrap();
        match hostile {
            true => symlink(cut.dir.join("keys/root.pem"), cut.staged()).unwrap(),
            false => fs::write(cut.staged(), &key).unwrap(),
        }
        assert_ne!(cut.assert_refused("a key as staged content").fault(), Fault::Refused);
        assert!(Cut::files(&cut.dir.join("published")).iter().all(|(_, bytes)| !bytes.starts_with(b"-----BEGIN")));
    }
}

#[test]
fn metadata_that_is_unsigned_changed_or_asked_for_by_nobody_is_refused() {
    let cut = Cut::new();
    for number in 0..3 {
        let cut = Cut::new();
        let file = fs::read(cut.folder().join(cut.name(number))).unwrap();
        let mut document: Value = serde_json::from_slice(&file).unwrap();
        document["signatures"] = json!([]);
        cut.replace(number, document.to_string().as_bytes());
        cut.assert_foreign("unsigned");
        // Signed, and not what was recorded.
        let cut = Cut::new();
        let file = [&*fs::read(cut.folder().join(cut.name(number))).unwrap(), b" "].concat();
        fs::write(cut.folder().join(cut.name(number)), file).unwrap();
        cut.assert_foreign("another file");
        fs::remove_file(cut.folder().join(cut.name(number))).unwrap();
        cut.assert_foreign("no file");
    }
    for extra in ["9.root.json", "1.root.json", "9.targets.json", "1.snapshot.json"] {
        let cut = Cut::new();
        fs::write(cut.folder().join(extra), b"{}").unwrap();
        cut.edit(|record| {
            let entry = json!({ "name": extra, "sha256": Digest::sha256(b"{}").to_hex() });
            record["metadata"].as_array_mut().unwrap().push(entry);
        });
        cut.assert_foreign(extra);
    }
    cut.edit(|record| record["metadata"] = json!([]));
    cut.assert_foreign("no metadata");
}

#[test]
fn an_old_publication_that_is_recorded_again_is_refused() {
    let cut = Cut::new();
    let files = Cut::files(&cut.folder());
    publish(&cut.dir, &SystemClock).unwrap();
    refresh(&cut.dir, &SystemClock, Renewal::Both).unwrap();
    fs::create_dir(cut.folder()).unwrap();
    fs::set_permissions(cut.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    cut.assert_foreign("replayed");
}

#[test]
fn a_record_that_is_a_symbolic_link_is_not_followed() {
    let cut = Cut::new();
    let elsewhere = cut.outside.path().join("record");
    fs::rename(cut.record(), &elsewhere).unwrap();
    symlink(&elsewhere, cut.record()).unwrap();
    cut.assert_refused("a linked record");
}

#[test]
fn a_recorded_file_that_is_a_symbolic_link_is_not_published() {
    for number in 0..3 {
        let cut = Cut::new();
        let (file, elsewhere) = (cut.folder().join(cut.name(number)), cut.outside.path().join("elsewhere"));
        fs::rename(&file, &elsewhere).unwrap();
        symlink(&elsewhere, &file).unwrap();
        cut.assert_refused("a linked file");
    }
}

#[test]
fn files_that_others_may_write_are_published_with_the_mode_of_all() {
    let cut = Cut::new();
    for number in 0..3 {
        let file = cut.folder().join(cut.name(number));
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    }
    assert!(publish(&cut.dir, &SystemClock).unwrap().resumed);
    for name in ["2.targets.json", "2.snapshot.json", "timestamp.json"] {
        let facts = fs::metadata(cut.dir.join("published/metadata").join(name)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&facts) & 0o777, 0o644, "{name}");
    }
}

#[test]
fn folders_that_are_symbolic_links_are_not_written_through() {
    for folder in
        ["published", "published/metadata", "published/targets", "keys", "staged", "staged/files", "staged/publication"]
    {
        let cut = Cut::new();
        let elsewhere = cut.outside.path().join("elsewhere");
        fs::rename(cut.dir.join(folder), &elsewhere).unwrap();
        symlink(&elsewhere, cut.dir.join(folder)).unwrap();
        let error = cut.assert_refused(folder);
        let sentence = error.to_string();
        assert!(sentence.contains(folder) && sentence.contains("symbolic link"), "{sentence}");
    }
}

#[test]
fn a_linked_folder_of_targets_is_not_written_through() {
    let cut = Cut::new();
    let elsewhere = cut.outside.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, cut.dir.join("published/targets/foo")).unwrap();
    let sentence = cut.assert_refused("targets/foo").to_string();
    assert!(sentence.contains("published/targets/foo"), "{sentence}");
}

#[test]
fn a_half_made_repository_that_is_a_symbolic_link_is_not_moved_here() {
    let cut = Cut::new();
    let dir = cut.outside.path().join("new");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    symlink(&cut.dir, dir.join(".init")).unwrap();
    let before = Cut::files(cut.outside.path());
    let error = init(&dir, &InitOptions::default(), &SystemClock).unwrap_err();
    assert!(error.to_string().contains(".init"), "{error}");
    assert_eq!(Cut::files(cut.outside.path()), before);
}
