//! Keys where teams keep them: encrypted files, keys that OpenSSL made, keys on tokens.

#[cfg(all(feature = "pkcs11", feature = "system-tests"))]
mod tokens;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::harness::{
    folder,
    readers::{Published, Reader},
};

/// Somebody with a folder, a repository `dir` in it, and no terminal.
struct Keeper {
    home: TempDir,
    variables: Vec<(String, String)>,
}

impl Keeper {
    fn new() -> Self {
        Self { home: folder::temporary(), variables: Vec::new() }
    }

    fn set(&mut self, variable: &str, value: &str) {
        self.variables.push((variable.to_owned(), value.to_owned()));
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    fn tufgate(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tufgate"));
        command.current_dir(self.path()).args(arguments).stdin(Stdio::null());
        for kind in ["PASSPHRASE", "PIN"] {
            for key in ["", "_ROOT", "_TARGETS", "_ONLINE", "_TEAM"] {
                command.env_remove(format!("TUFGATE_{kind}{key}"));
            }
        }
        command.envs(self.variables.iter().cloned()).output().unwrap()
    }

    #[track_caller]
    fn does(&self, arguments: &[&str]) -> String {
        let output = self.tufgate(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Holds that a command is refused as wrongly used, in one sentence with these words, and that it changed nothing.
    #[track_caller]
    fn cannot(&self, arguments: &[&str], words: &[&str]) {
        self.ends(2, arguments, words);
    }

    /// The same for what went wrong here rather than in the command.
    #[cfg(all(feature = "pkcs11", feature = "system-tests"))]
    #[track_caller]
    fn fails(&self, arguments: &[&str], words: &[&str]) {
        self.ends(1, arguments, words);
    }

    #[track_caller]
    fn ends(&self, code: i32, arguments: &[&str], words: &[&str]) {
        let before = self.content();
        let output = self.tufgate(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
        assert!(self.content() == before, "{arguments:?} failed and changed something");
    }

    fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        // A token remembers wrong PINs; that is its own.
        let tokens = self.path().join("tokens");
        let other = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "lock");
        let other = |file: &PathBuf| other(file) || file.starts_with(&tokens);
        let mut files: Vec<_> = folder::files_below(self.path()).into_iter().filter(|file| !other(file)).collect();
        files.sort();
        files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
    }

    fn private(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
        fs::set_permissions(self.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[cfg(feature = "system-tests")]
    fn openssl(&self, out: &str, arguments: &[&str]) {
        let output = Command::new("openssl")
            .current_dir(self.path())
            .args(arguments)
            .args(["-out", out])
            .output()
            .expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::set_permissions(self.path().join(out), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn published(&self) -> Published {
        let published = self.path().join("dir/published");
        let (metadata, targets) = (published.join("metadata"), published.join("targets"));
        Published::new(metadata.join("1.root.json"), metadata, targets)
    }

    /// Makes every role due, so that `publish` signs with every key.
    fn makes_all_due(&self) {
        let settings = self.path().join("dir/repository.json");
        let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&settings).unwrap()).unwrap();
        for role in ["root", "targets"] {
            value["expires_after"][role] = "1000d".into();
        }
        fs::write(&settings, serde_json::to_vec(&value).unwrap()).unwrap();
    }

    #[track_caller]
    fn publishes_all(&self) {
        let said = self.does(&["repo", "publish", "dir"]);
        for role in ["root", "targets", "snapshot", "timestamp"] {
            assert!(said.contains(role), "{role} was not signed: {said}");
        }
    }
}

#[test]
fn a_repository_with_encrypted_keys_is_signed_with_their_passphrases_and_not_without() {
    let mut keeper = Keeper::new();
    keeper.private("root-passphrase", "correct horse\n");
    keeper.set("TUFGATE_PASSPHRASE", "battery staple");
    let file = "--passphrase-file=root=root-passphrase";
    keeper.does(&["repo", "init", "dir", "--encrypt-keys", file]);
    for name in ["root", "targets"] {
        let key = fs::read_to_string(keeper.path().join(format!("dir/keys/{name}.pem"))).unwrap();
        assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{name}");
    }
    keeper.does(&["key", "show", "dir/keys/root.pem", file]);
    keeper.cannot(&["key", "show", "dir/keys/root.pem"], &["TUFGATE_PASSPHRASE", "dir/keys/root.pem"]);
    fs::set_permissions(keeper.path().join("root-passphrase"), fs::Permissions::from_mode(0o640)).unwrap();
    keeper.cannot(&["key", "show", "dir/keys/root.pem", file], &["chmod 600 root-passphrase"]);
    keeper.variables.clear();
    keeper.cannot(
        &["key", "show", "dir/keys/targets.pem"],
        &["terminal", "--passphrase-file", "TUFGATE_PASSPHRASE_TARGETS"],
    );
    // The online key signs unattended.
    keeper.does(&["repo", "publish", "dir", "--refresh"]);
    keeper.makes_all_due();
    keeper.set("TUFGATE_PASSPHRASE_ROOT", "correct horse");
    keeper.cannot(&["repo", "publish", "dir"], &["targets.pem", "TUFGATE_PASSPHRASE_TARGETS"]);
    keeper.set("TUFGATE_PASSPHRASE_TARGETS", "battery staple");
    keeper.publishes_all();
    for reader in Reader::ALL {
        reader.assert_reads(&keeper.published(), &[]);
    }
}

#[cfg(feature = "system-tests")]
#[test]
fn keys_that_openssl_made_sign_a_repository_that_other_clients_verify() {
    let mut keeper = Keeper::new();
    keeper.openssl("p256.pem", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    keeper.openssl("root.pem", &["pkcs8", "-topk8", "-v2", "aes256", "-in", "p256.pem", "-passout", "pass:horse"]);
    keeper.openssl("rsa.pem", &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    keeper.set("TUFGATE_PASSPHRASE", "horse");
    keeper.does(&["repo", "init", "dir", "--key", "root=root.pem", "--key", "targets=rsa.pem"]);
    keeper.makes_all_due();
    keeper.publishes_all();
    for reader in Reader::ALL {
        reader.assert_reads(&keeper.published(), &[]);
    }
    keeper.set("TUFGATE_PASSPHRASE", "staple");
    keeper.cannot(&["repo", "init", "other", "--key", "root=root.pem"], &["root.pem", "passphrase"]);
}

#[test]
fn a_passphrase_is_set_changed_and_removed() {
    let mut keeper = Keeper::new();
    let made = keeper.does(&["key", "generate", "root.pem", "--json"]);
    keeper.private("new", "correct horse\n");
    keeper.cannot(&["key", "encrypt", "root.pem"], &["--new-passphrase-file"]);
    keeper.does(&["key", "encrypt", "root.pem", "--new-passphrase-file", "new"]);
    keeper.set("TUFGATE_PASSPHRASE", "wrong");
    keeper.cannot(&["key", "decrypt", "root.pem"], &["TUFGATE_PASSPHRASE"]);
    keeper.does(&["key", "decrypt", "root.pem", "--passphrase-file", "new"]);
    assert_eq!(keeper.does(&["key", "show", "root.pem", "--json"]), made);
}
