//! What can go wrong at the signer: one clear sentence each with the way out, and a folder that is byte for byte what it was.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{folder, gate::binary};

/// A home with a repository `dir` that has something staged, and nobody at a terminal.
struct Home {
    folder: TempDir,
    variables: Vec<(&'static str, &'static str)>,
    /// What the program is started by: its arguments come last.
    wrapper: Vec<String>,
    /// Held while the program runs.
    locked: Option<fs::File>,
}

impl Home {
    fn new() -> Self {
        let home = Self { folder: folder::temporary(), variables: Vec::new(), wrapper: Vec::new(), locked: None };
        home.does(&["init", "dir"]);
        home.does(&["key", "generate", "stranger.pem"]);
        home.does(&["rotate", "dir", "targets", "--add", "stranger.pub.json"]);
        fs::rename(home.path("stranger.pem"), home.path("second.pem")).unwrap();
        fs::remove_file(home.path("stranger.pub.json")).unwrap();
        home.does(&["key", "generate", "stranger.pem"]);
        home
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn does(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs `tufgate repo …`, or `tufgate key …`.
    fn run(&self, arguments: &[&str]) -> Output {
        let program = binary().to_str().unwrap().to_owned();
        let mut line = self.wrapper.iter().chain([&program]);
        let mut command = Command::new(line.next().unwrap());
        command.args(line).current_dir(self.folder.path()).stdin(Stdio::null());
        for variable in ["TUFGATE_PASSPHRASE", "TUFGATE_PIN", "TUFGATE_PKCS11_MODULE"] {
            command.env_remove(variable);
        }
        if arguments[0] != "key" {
            command.arg("repo");
        }
        command.args(arguments).envs(self.variables.iter().copied()).output().unwrap()
    }

    /// Names, modes and bytes of all that is there, but for locks.
    fn content(&self) -> Vec<(PathBuf, u32, Vec<u8>)> {
        let files = folder::files_below(self.folder.path());
        let mut content: Vec<_> = files
            .into_iter()
            .filter(|file| file.extension().is_none_or(|extension| extension != "lock"))
            .map(|file| {
                let mode = fs::metadata(&file).unwrap().permissions().mode();
                (file.clone(), mode, fs::read(&file).unwrap())
            })
            .collect();
        content.sort();
        content
    }
}

/// Does this to every folder below, itself included.
fn every_folder(folder: &Path, mode: u32) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            every_folder(&entry.path(), mode);
        }
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
}

struct Trouble {
    name: &'static str,
    prepare: fn(&mut Home),
    command: &'static [&'static str],
    exit: i32,
    /// What the sentence says: what happened, and the way out.
    words: &'static [&'static str],
}

const TROUBLES: &[Trouble] = &[
    Trouble {
        name: "a wrong passphrase",
        prepare: |home| {
            home.variables.push(("TUFGATE_PASSPHRASE", "right"));
            fs::write(home.path("passphrase"), "right").unwrap();
            fs::set_permissions(home.path("passphrase"), fs::Permissions::from_mode(0o600)).unwrap();
            home.does(&["key", "encrypt", "dir/keys/root.pem", "--new-passphrase-file", "passphrase"]);
            home.variables = vec![("TUFGATE_PASSPHRASE", "wrong")];
        },
        command: &["publish", "dir"],
        exit: 2,
        words: &["TUFGATE_PASSPHRASE", "does not open private key", "--passphrase-file"],
    },
    Trouble {
        name: "no passphrase and nobody to ask",
        prepare: |home| {
            fs::write(home.path("passphrase"), "right").unwrap();
            fs::set_permissions(home.path("passphrase"), fs::Permissions::from_mode(0o600)).unwrap();
            home.does(&["key", "encrypt", "dir/keys/online.pem", "--new-passphrase-file", "passphrase"]);
        },
        command: &["publish", "dir", "--refresh"],
        exit: 2,
        words: &["terminal", "--passphrase-file", "TUFGATE_PASSPHRASE_ONLINE"],
    },
    Trouble {
        name: "an absent token",
        prepare: |home| {
            let public: Value =
                serde_json::from_slice(&fs::read(home.path("dir/keys/root.pub.json")).unwrap()).unwrap();
            let token =
                json!({ "uri": "pkcs11:token=gone;object=root?module-path=/nowhere/token.so", "public": public });
            fs::write(home.path("dir/keys/root.token.json"), token.to_string()).unwrap();
            fs::remove_file(home.path("dir/keys/root.pem")).unwrap();
        },
        command: &["publish", "dir"],
        exit: if cfg!(feature = "pkcs11") { 1 } else { 2 },
        words: &["token"],
    },
    Trouble {
        name: "a key of no role",
        prepare: |_| {},
        command: &["sign", "dir", "--key", "stranger.pem"],
        exit: 2,
        words: &["may sign nothing of what is staged", "wait for"],
    },
    Trouble {
        name: "too few signatures",
        prepare: |home| fs::remove_file(home.path("dir/keys/root.pem")).unwrap(),
        command: &["publish", "dir"],
        exit: 1,
        words: &["role root needs 1", "repo sign", "dir/keys"],
    },
    Trouble {
        name: "no folder of a repository",
        prepare: |_| {},
        command: &["publish", "."],
        exit: 2,
        words: &["is not a tufgate repository", "repo init"],
    },
    Trouble {
        name: "a repository of a newer format",
        prepare: |home| fs::write(home.path("dir/repository.json"), r#"{"format": 9}"#).unwrap(),
        command: &["sign", "dir"],
        exit: 2,
        words: &["has format 9", "use a newer tufgate"],
    },
    Trouble {
        name: "a folder that may not be written",
        prepare: |home| {
            every_folder(&home.path("dir"), 0o500);
            if rustix::process::geteuid().is_root() {
                // Root without its privileges is a user like others.
                let dropped = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
                home.wrapper = dropped.map(str::to_owned).to_vec();
            }
        },
        command: &["publish", "dir"],
        exit: 1,
        words: &["ermission denied", "run the command as the user whom the folder belongs to"],
    },
    Trouble {
        name: "a disk that takes no more",
        prepare: |home| home.wrapper = ["prlimit", "--fsize=200"].map(str::to_owned).to_vec(),
        command: &["publish", "dir"],
        exit: 1,
        words: &["make room"],
    },
    Trouble {
        name: "a disk that takes no more of an edit",
        prepare: |home| home.wrapper = ["prlimit", "--fsize=200"].map(str::to_owned).to_vec(),
        command: &["rotate", "dir", "root", "--add", "stranger.pub.json"],
        exit: 1,
        words: &["make room"],
    },
    Trouble {
        name: "two writers at once",
        prepare: |home| {
            let lock = fs::File::open(home.path("dir/.edit.lock")).unwrap();
            lock.lock().unwrap();
            home.locked = Some(lock);
        },
        command: &["publish", "dir"],
        exit: 1,
        words: &["another tufgate command is working on dir", "wait for it to end"],
    },
    #[cfg(feature = "system-tests")]
    Trouble {
        name: "an expired root, or a clock that is far ahead",
        prepare: |home| home.wrapper = ["faketime", "-f", "+400d"].map(str::to_owned).to_vec(),
        command: &["publish", "dir", "--refresh"],
        exit: 1,
        words: &["role root expired", "this machine's clock", "repo publish", "or set the clock"],
    },
    #[cfg(feature = "system-tests")]
    Trouble {
        name: "a clock that is far behind",
        prepare: |home| home.wrapper = ["faketime", "-f", "-40d"].map(str::to_owned).to_vec(),
        command: &["publish", "dir"],
        exit: 1,
        words: &["clock says", "was signed about", "set the clock"],
    },
];

#[test]
fn every_trouble_of_the_signer_is_one_sentence_with_the_way_out_and_changes_nothing() {
    let mut wrong = Vec::new();
    for Trouble { name, prepare, command, exit, words } in TROUBLES {
        let mut home = Home::new();
        prepare(&mut home);
        let before = home.content();
        let output = home.run(command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() != Some(*exit) || said.lines().count() != 1 || !output.stdout.is_empty() {
            wrong.push(format!("{name}: {} {said:?}", output.status));
        }
        wrong.extend(
            words.iter().filter(|word| !said.contains(**word)).map(|word| format!("{name}: no {word:?} in {said}")),
        );
        if home.content() != before {
            wrong.push(format!("{name}: something changed"));
        }
        if home.path("dir/staged").exists() {
            every_folder(&home.path("dir"), 0o755);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A terminal that nobody types at yet holds up no renewal.
#[cfg(feature = "system-tests")]
#[test]
fn renewals_go_on_while_somebody_is_asked_for_a_passphrase() {
    let home = Home::new();
    fs::write(home.path("passphrase"), "right").unwrap();
    fs::set_permissions(home.path("passphrase"), fs::Permissions::from_mode(0o600)).unwrap();
    home.does(&["key", "encrypt", "dir/keys/root.pem", "--new-passphrase-file", "passphrase"]);
    let mut terminal = Terminal::start(&home, "repo publish dir");
    terminal.await_prompt("Passphrase of");
    home.does(&["publish", "dir", "--refresh"]);
    let (is_done, said) = terminal.answer("right");
    assert!(is_done && said.contains("root       version    2"), "{said}");
    assert!(said.contains("timestamp  version    3"), "the renewal is counted: {said}");
}

#[cfg(feature = "system-tests")]
#[test]
fn whoever_signs_at_a_terminal_is_shown_the_change_and_asked_and_the_default_is_no() {
    let home = Home::new();
    let before = home.content();
    for (answer, is_yes) in [("", false), ("no", false), ("y", true)] {
        let mut terminal = Terminal::start(&home, "repo sign dir --key dir/keys/root.pem");
        terminal.await_prompt("Sign this change? [y/N]");
        let (is_done, said) = terminal.answer(answer);
        for shown in ["~ root", "keys of targets: threshold 1 -> 1", "change   "] {
            assert!(said.contains(shown), "no {shown:?} in {said}");
        }
        assert_eq!(is_done, is_yes, "{answer}: {said}");
        assert!(said.contains(if is_yes { "1 signature(s) added" } else { "nothing was signed" }), "{said}");
        assert_eq!(home.content() != before, is_yes, "{answer}");
    }
}

/// The program at a terminal of its own.
#[cfg(feature = "system-tests")]
struct Terminal {
    child: std::process::Child,
    out: std::process::ChildStdout,
    said: Vec<u8>,
}

#[cfg(feature = "system-tests")]
impl Terminal {
    fn start(home: &Home, arguments: &str) -> Self {
        let line = format!("{} {arguments}", binary().display());
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .current_dir(home.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script is there");
        let out = child.stdout.take().unwrap();
        Self { child, out, said: Vec::new() }
    }

    #[track_caller]
    fn await_prompt(&mut self, prompt: &str) {
        use std::io::Read as _;
        while !String::from_utf8_lossy(&self.said).contains(prompt) {
            let mut byte = [0];
            assert_eq!(self.out.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&self.said));
            self.said.push(byte[0]);
        }
    }

    /// Types a line and waits for the end: whether it ended well, and all that was shown.
    fn answer(mut self, line: &str) -> (bool, String) {
        use std::io::{Read as _, Write as _};
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
        self.out.read_to_end(&mut self.said).unwrap();
        (self.child.wait().unwrap().success(), String::from_utf8_lossy(&self.said).into_owned())
    }
}
