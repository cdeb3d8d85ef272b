//! docs/ADOPTING.md, typed in as it stands: each chapter's commands run one after the other in a fresh folder, and what
//! the page shows of their output is what they print.
//!
//! A block of three backticks and `sh` is run by bash. One marked `sh background` goes on until the chapter ends, as in a
//! terminal of its own; one marked `sh fails` has to fail, and one marked `sh soon`
//! succeeds in a while. A block marked `text` right behind one holds lines of what it
//! prints, `…` standing for what differs from run to run. Addresses of the page stand for servers of the test.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

use tempfile::TempDir;

use crate::harness::{
    certificate::Certificate,
    folder,
    gate::{PATIENCE, binary},
    http,
    installers::isolated,
    python::Python,
    source::root,
    upstream::Upstream,
    wheel::Wheel,
};

/// How a block is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Succeeds,
    /// Tried again until it does.
    SucceedsSoon,
    Fails,
    Background,
}

/// Commands of the page, and lines that they print.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    mode: Mode,
    commands: String,
    prints: Vec<String>,
}

/// The blocks of a chapter of a page.
fn blocks(page: &str, chapter: &str) -> Vec<Block> {
    let chapter = page.split("\n## ").find(|text| text.starts_with(chapter));
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = chapter.unwrap_or_else(|| panic!("there is no such chapter")).lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```").filter(|kind| !kind.is_empty()) else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let mode = match kind {
            "sh" => Mode::Succeeds,
            "sh soon" => Mode::SucceedsSoon,
            "sh fails" => Mode::Fails,
            "sh background" => Mode::Background,
            "text" => {
                blocks.last_mut().unwrap().prints.extend(body.into_iter().map(str::to_owned));
                continue;
            }
            other => panic!("a block is marked {other:?}, which this test does not know"),
        };
        blocks.push(Block { mode, commands: body.join("\n"), prints: Vec::new() });
    }
    blocks
}

/// Whether a printed line is that of the page, in which `…` stands for anything.
fn is_like(printed: &str, shown: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    match last {
        None => rest.is_empty(),
        Some(part) => part.is_empty() || rest.is_empty() || printed.ends_with(part),
    }
}

/// Ports that no system gives out by itself, so that nobody takes one between two commands of the page.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A desk at which the page is typed in.
struct Desk {
    home: TempDir,
    upstream: Upstream,
    /// What the page calls it, and what it is here.
    names: Vec<(String, String)>,
    /// The addresses of the page, here.
    listeners: Vec<SocketAddr>,
    running: Vec<(Child, PathBuf)>,
}

impl Desk {
    fn new() -> Self {
        let upstream = Upstream::start();
        for wheel in [
            Wheel::needing("requests", "2.32.5", &["idna>=2.5"]),
            Wheel::new("idna", "3.10"),
            Wheel::new("six", "1.17.0"),
            Wheel::new("acme-tool", "1.0"),
            Wheel::new("acme-tool", "1.1"),
        ] {
            upstream.offer(&wheel);
        }
        let mut names = vec![
            ("https://index.example/simple/".to_owned(), upstream.url("/simple/")),
            ("https://files.example/packages/".to_owned(), upstream.url("/files/")),
        ];
        let mut listeners = Vec::new();
        for port in [8000, 8080, 9090] {
            let here = SocketAddr::from(([127, 0, 0, 1], free_port()));
            names.push((format!("127.0.0.1:{port}"), here.to_string()));
            names.push((format!("http.server {port}"), format!("http.server {}", here.port())));
            listeners.push(here);
        }
        names.extend([
            ("https://tuf.example/".to_owned(), format!("http://{}/", listeners[0])),
            ("0.0.0.0:8443".to_owned(), listeners[1].to_string()),
            ("https://gate.example:8443/".to_owned(), format!("https://localhost:{}/", listeners[1].port())),
        ]);
        let home = folder::temporary();
        let bin = home.path().join("bin");
        fs::create_dir(&bin).unwrap();
        symlink(binary(), bin.join("tufgate")).unwrap();
        // The machine's own index, as its pip and uv have it.
        let index = upstream.url("/simple/");
        let configuration = home.path().join(".config/pip");
        fs::create_dir_all(&configuration).unwrap();
        let certificate = Certificate::of_localhost();
        let authority = home.path().join("authority.pem");
        let pip = format!("[global]\nindex-url = {index}\ncert = {}\n", authority.display());
        fs::write(configuration.join("pip.conf"), pip).unwrap();
        fs::write(authority, &certificate.authority).unwrap();
        let tls = home.path().join("tls");
        fs::create_dir(&tls).unwrap();
        fs::write(tls.join("fullchain.pem"), &certificate.certificate).unwrap();
        fs::write(tls.join("key.pem"), &certificate.key).unwrap();
        Self { home, upstream, names, listeners, running: Vec::new() }
    }

    fn here(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, here)| text.replace(name, here))
    }

    fn bash(&self, commands: &str) -> Command {
        let python = Python::shared();
        let mut bash = isolated(Path::new("bash"), self.home.path());
        let installers = python.interpreter().parent().unwrap().to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = [self.home.path().join("bin"), installers].into_iter().chain(std::env::split_paths(&path));
        bash.env("PATH", std::env::join_paths(places).unwrap())
            .env("PIP_NO_CACHE_DIR", "1")
            .env("UV_NO_CACHE", "1")
            .env("UV_NO_CONFIG", "1")
            .env("UV_DEFAULT_INDEX", self.upstream.url("/simple/"))
            .env("TUFGATE_LISTEN", self.listeners[1].to_string())
            .env("TUFGATE_ADMIN_LISTEN", self.listeners[2].to_string())
            .env_remove("PIP_CONFIG_FILE")
            .env("PYTHONUNBUFFERED", "1")
            // What a person types where the page says that a passphrase is asked for.
            .env("TUFGATE_PASSPHRASE", "correct horse battery staple")
            .current_dir(self.home.path())
            .arg("-euo")
            .arg("pipefail")
            .arg("-c")
            .arg(commands)
            .stdin(Stdio::null());
        bash
    }

    #[track_caller]
    fn type_in(&mut self, block: &Block) {
        let commands = self.here(&block.commands);
        if block.mode == Mode::Background {
            return self.start(&commands, &block.prints);
        }
        let run = || {
            let output = self.bash(&commands).output().unwrap();
            let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            (output.status.success(), said)
        };
        let (succeeded, said) = match block.mode {
            Mode::SucceedsSoon => folder::eventually(&commands, PATIENCE, || Some(run()).filter(|(done, _)| *done)),
            _ => run(),
        };
        assert_eq!(succeeded, block.mode != Mode::Fails, "{commands}\n{said}{}", self.background());
        for line in &block.prints {
            let shown = self.here(line);
            assert!(said.lines().any(|line| is_like(line, &shown)), "{commands}\ndoes not print: {shown}\n{said}");
        }
    }

    /// Starts what goes on, and waits until it serves: the address that the commands name, and the gate's own word.
    fn start(&mut self, commands: &str, prints: &[String]) {
        let log = self.home.path().join(format!(".log-{}", self.running.len()));
        let mut bash = self.bash(&format!("exec {commands}"));
        let into = File::create(&log).unwrap();
        bash.stdout(into.try_clone().unwrap()).stderr(into);
        self.running.push((bash.spawn().unwrap(), log.clone()));
        let is_gate = commands.contains("tufgate serve ") || commands.contains("tufgate quickstart");
        let [files, public, admin] = [self.listeners[0], self.listeners[1], self.listeners[2]];
        let awaited = if is_gate { public } else { files };
        folder::eventually(&format!("{commands} serves: {}", self.background()), PATIENCE, || {
            if commands.contains("serve-timestamps") {
                return fs::read_to_string(&log).is_ok_and(|text| text.contains("fresh")).then_some(());
            }
            TcpStream::connect(awaited).ok()?;
            (!is_gate || http::get(admin, "/readyz").status == 200).then_some(())
        });
        for line in prints {
            let shown = self.here(line);
            folder::eventually(&format!("{commands} prints {shown}: {}", self.background()), PATIENCE, || {
                let said = fs::read_to_string(&log).unwrap_or_default();
                said.lines().any(|line| is_like(line, &shown)).then_some(())
            });
        }
    }

    /// What the background processes said.
    fn background(&self) -> String {
        self.running.iter().fold(String::new(), |mut all, (_, log)| {
            let _ = write!(all, "\n--\n{}", fs::read_to_string(log).unwrap_or_default());
            all
        })
    }

    #[track_caller]
    fn type_in_chapter(&mut self, chapter: &str) {
        let page = fs::read_to_string(root().join("docs/ADOPTING.md")).unwrap();
        let blocks = blocks(&page, chapter);
        assert!(blocks.iter().any(|block| block.mode == Mode::Fails), "a chapter shows a refusal");
        for block in &blocks {
            self.type_in(block);
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for (child, _) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_page_on_one_developers_laptop_does_what_it_says() {
    Desk::new().type_in_chapter("One developer's laptop");
}

#[test]
fn the_page_on_a_team_with_ci_does_what_it_says() {
    Desk::new().type_in_chapter("A team with CI");
}

#[test]
fn the_page_on_an_organisation_does_what_it_says() {
    Desk::new().type_in_chapter("An organisation");
}

#[test]
fn blocks_are_read_as_they_stand() {
    let page = "# x\n\n## One\n```sh\na\nb\n```\nwords\n```text\nline …\n```\n\n```sh fails\nc\n```\n\n## Two\n```sh\nd\n```\n";
    let found = blocks(page, "One");
    assert_eq!(found.len(), 2);
    assert_eq!(
        (&*found[0].commands, found[0].mode, &found[0].prints[..]),
        ("a\nb", Mode::Succeeds, &["line …".to_owned()][..])
    );
    assert_eq!((&*found[1].commands, found[1].mode), ("c", Mode::Fails));
}

#[test]
fn a_line_of_the_page_matches_what_is_printed_and_nothing_else() {
    for (printed, shown) in
        [("a b c", "a … c"), ("a b c", "a b c"), ("a b c", "… c"), ("a b c", "a …"), ("a c c", "a …c")]
    {
        assert!(is_like(printed, shown), "{printed} {shown}");
    }
    for (printed, shown) in [("a b c", "a b"), ("a b c", "b …"), ("a b c", "a … d"), ("a b", "a b c")] {
        assert!(!is_like(printed, shown), "{printed} {shown}");
    }
}
