//! Keys on a real PKCS#11 token (SoftHSM): made on it, never off it.

use super::*;

/// Where Debian puts the library.
const SOFTHSM: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
];

impl Keeper {
    /// A keeper with a token `team`, PIN 271828.
    fn with_token() -> Self {
        let mut keeper = Self::new();
        fs::create_dir(keeper.path().join("tokens")).unwrap();
        let configuration = keeper.path().join("softhsm2.conf");
        fs::write(&configuration, format!("directories.tokendir = {}/tokens\n", keeper.path().display())).unwrap();
        keeper.set("SOFTHSM2_CONF", configuration.to_str().unwrap());
        let module = SOFTHSM.into_iter().find(|path| Path::new(path).exists()).expect("softhsm2 is installed");
        keeper.set("TUFGATE_PKCS11_MODULE", module);
        keeper.pkcs11_tool(&["--init-token", "--slot-index", "0", "--label", "team", "--so-pin", "314159"]);
        keeper.pkcs11_tool(&["--token-label", "team", "--init-pin", "--so-pin", "314159", "--pin", "271828"]);
        keeper
    }

    fn pkcs11_tool(&self, arguments: &[&str]) {
        let module = &self.variables.iter().find(|(name, _)| name == "TUFGATE_PKCS11_MODULE").unwrap().1;
        let output = Command::new("pkcs11-tool")
            .current_dir(self.path())
            .args(["--module", module])
            .args(arguments)
            .envs(self.variables.iter().cloned())
            .output()
            .expect("opensc is installed");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes a key on the token.
    fn makes(&self, label: &str, kind: &str, more: &[&str]) {
        let arguments = ["--token-label", "team", "--login", "--pin", "271828", "--keypairgen", "--label", label];
        self.pkcs11_tool(&[&arguments[..], &["--key-type", kind, "--id", "01"], more].concat());
    }

    /// Makes a key on the token and the file by which repositories know it.
    fn makes_and_registers(&self, label: &str, kind: &str, more: &[&str]) {
        self.makes(label, kind, more);
        self.does(&["key", "token", &format!("pkcs11:token=team;object={label}"), &format!("{label}.token.json")]);
    }
}

#[test]
fn keys_on_a_token_sign_a_repository_that_other_clients_verify() {
    let mut keeper = Keeper::with_token();
    keeper.makes_and_registers("root", "EC:prime256v1", &[]);
    keeper.makes_and_registers("targets", "EC:edwards25519", &[]);
    keeper.makes_and_registers("online", "rsa:2048", &[]);
    keeper.set("TUFGATE_PIN_TEAM", "271828");
    let keys = ["--key=root=root.token.json", "--key=targets=targets.token.json", "--key=online=online.token.json"];
    keeper.does(&[&["repo", "init", "dir"], &keys[..]].concat());
    keeper.makes_all_due();
    keeper.publishes_all();
    for reader in Reader::ALL {
        reader.assert_reads(&keeper.published(), &[]);
    }
    let schemes: Vec<_> = ["root", "targets", "online"]
        .map(|name| keeper.does(&["key", "show", &format!("dir/keys/{name}.token.json")]))
        .iter()
        .map(|shown| shown.lines().nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(schemes, ["scheme  ecdsa-sha2-nistp256", "scheme  ed25519", "scheme  rsassa-pss-sha256"]);
    let private = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "pem");
    assert!(!folder::files_below(&keeper.path().join("dir")).iter().any(private));
}

#[test]
fn a_key_that_wants_the_pin_before_each_signature_gets_it() {
    let mut keeper = Keeper::with_token();
    keeper.makes_and_registers("root", "rsa:2048", &["--always-auth"]);
    keeper.private("pin", "271828\n");
    keeper.does(&["repo", "init", "dir", "--key", "root=root.token.json", "--pin-file", "team=pin"]);
    keeper.makes_all_due();
    keeper.set("TUFGATE_PIN", "271828");
    keeper.publishes_all();
    Reader::PythonTuf.assert_reads(&keeper.published(), &[]);
}

#[test]
fn a_wrong_pin_a_missing_one_and_an_absent_token_module_or_key_are_each_told_in_a_sentence() {
    let mut keeper = Keeper::with_token();
    keeper.makes_and_registers("root", "EC:prime256v1", &[]);
    let init = ["repo", "init", "dir", "--key", "root=root.token.json"];
    keeper.cannot(&init, &["PIN", "team", "--pin-file", "TUFGATE_PIN_TEAM", "terminal"]);
    keeper.set("TUFGATE_PIN", "999999");
    keeper.fails(&init, &["PIN from TUFGATE_PIN is wrong and few tries are left", "--pin-file"]);
    assert!(!keeper.path().join("dir/repository.json").exists());
    let register = |uri: &str| ["key".to_owned(), "token".to_owned(), uri.to_owned(), "new.token.json".to_owned()];
    for (uri, words) in [
        ("pkcs11:token=other;object=root", ["not there", "`team`"]),
        ("pkcs11:token=team;object=root?module-path=/nowhere.so", ["/nowhere.so", "module-path"]),
        ("pkcs11:token=team;object=root?pin-value=271828", ["pin-source", "PIN"]),
        ("pkcs11:token=team", ["object=", "no key"]),
    ] {
        let arguments = register(uri);
        keeper.fails(&arguments.each_ref().map(String::as_str), &words);
    }
    keeper.set("TUFGATE_PIN", "271828");
    let arguments = register("pkcs11:token=team;object=none");
    keeper.fails(&arguments.each_ref().map(String::as_str), &["no such public key", "object="]);
    // Another key under the same name: what it signs is not what was registered.
    for half in ["privkey", "pubkey"] {
        let of_team = ["--token-label", "team", "--login", "--pin", "271828"];
        keeper.pkcs11_tool(&[&of_team[..], &["--delete-object", "--type", half, "--label", "root"]].concat());
    }
    keeper.makes("root", "EC:prime256v1", &[]);
    keeper.fails(&init, &["does not verify", "register"]);
}
