//! The origin, and the three servers in front of it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Outcome, SERVER_CORE, load,
    site::{self, Site},
};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
pub struct Server {
    /// As it stands in the table.
    pub name: &'static str,
    address: SocketAddr,
    child: Child,
}

impl Server {
    fn start(name: &'static str, address: SocketAddr, mut command: Command) -> Outcome<Self> {
        let child = command.stdin(Stdio::null()).spawn().map_err(|error| format!("{name}: {error}"))?;
        let mut server = Self { name, address, child };
        server.wait()?;
        Ok(server)
    }

    fn wait(&mut self) -> Outcome {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended: {status}", self.name).into());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{} does not listen", self.name).into());
            }
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process that was started.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of its processes so far, in seconds.
    pub fn cpu(&self) -> Outcome<f64> {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let of = |pid: u32| -> Outcome<f64> {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let fields: Vec<&str> = behind_name(&stat).split_whitespace().collect();
            let field = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
            Ok((field(11) + field(12)) / ticks)
        };
        self.processes()?.into_iter().map(of).sum()
    }

    /// The sum of what its processes held at most, in MiB.
    pub fn peak_memory(&self) -> Outcome<f64> {
        let of = |pid: u32| -> Outcome<f64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        self.processes()?.into_iter().map(of).sum()
    }

    /// Lets it use all cores.
    pub fn use_both_cores(&self) -> Outcome {
        self.pin("0,1")
    }

    /// Holds it to its core.
    pub fn use_one_core(&self) -> Outcome {
        self.pin(SERVER_CORE)
    }

    fn pin(&self, cores: &str) -> Outcome {
        for pid in self.processes()? {
            let pid = pid.to_string();
            Command::new("taskset").args(["-a", "-c", "-p", cores, &pid]).stdout(Stdio::null()).status()?;
        }
        Ok(())
    }

    /// The process that was started and all that came of it.
    fn processes(&self) -> Outcome<Vec<u32>> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let parent = behind_name(&stat).split_whitespace().nth(1).and_then(|text| text.parse::<u32>().ok());
            parents.extend(parent.map(|parent| (parent, pid)));
        }
        let mut family = vec![self.child.id()];
        let mut at = 0;
        while let Some(parent) = family.get(at).copied() {
            family.extend(parents.iter().filter(|(known, _)| *known == parent).map(|(_, pid)| *pid));
            at += 1;
        }
        Ok(family)
    }

    fn stop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ended = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Behind the name in parentheses, which may have any character.
fn behind_name(stat: &str) -> &str {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest)
}

/// nginx with the files, counting what is asked of it.
pub struct Origin {
    server: Server,
    log: PathBuf,
}

impl Origin {
    /// Starts it; it may use both cores.
    pub fn start(site: &Site) -> Outcome<Self> {
        let (folder, address) = (site.folder().join("origin"), free()?);
        let log = folder.join("access.log");
        let www = site.www();
        let server = format!(
            "log_format path '$uri'; access_log {log} path; root {www}; index index.json;
            server {{
                listen {address};
                default_type application/octet-stream;
                location /simple/ {{ default_type {accept}; types {{ }} }}
                location /packages/slow/ {{ limit_rate 20m; }}
            }}",
            log = log.display(),
            www = www.display(),
            accept = site::ACCEPT,
        );
        Ok(Self { server: Server::start("origin", address, nginx(&folder, "0,1", &server)?)?, log })
    }

    /// As a server to fetch from.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// How often a path was asked for.
    pub fn fetches(&self, path: &str) -> Outcome<usize> {
        Ok(fs::read_to_string(&self.log)?.lines().filter(|line| *line == path).count())
    }
}

/// What is compared.
pub struct Servers {
    tufgate: Server,
    others: Vec<Server>,
    start: Box<dyn Fn() -> Command>,
    /// Where tufgate keeps files.
    cache: PathBuf,
}

impl Servers {
    /// Starts all three, with empty caches.
    pub fn start(site: &Site, origin: &Origin, binary: &Path) -> Outcome<Self> {
        let mut servers = Self::start_tufgate_alone(site, origin, binary)?;
        servers.others = vec![nginx_cache(site, origin)?, varnish(site, origin)?];
        Ok(servers)
    }

    /// Starts tufgate with an empty cache and an empty state.
    pub fn start_tufgate_alone(site: &Site, origin: &Origin, binary: &Path) -> Outcome<Self> {
        let (folder, address) = (fresh(&site.folder().join("tufgate"))?, free()?);
        let config = folder.join("tufgate.toml");
        fs::write(&config, tufgate_config(site, origin, &folder, address)?)?;
        let binary = binary.to_owned();
        let start = move || {
            let mut command = pinned(SERVER_CORE, &binary.display().to_string());
            command.arg("serve").arg("--config").arg(&config).stderr(Stdio::null());
            command
        };
        Ok(Self {
            tufgate: Server::start("tufgate", address, start())?,
            others: Vec::new(),
            start: Box::new(start),
            cache: folder.join("cache"),
        })
    }

    /// nginx first: what the others are held against.
    pub fn all(&self) -> impl Iterator<Item = &Server> {
        self.others.first().into_iter().chain([&self.tufgate]).chain(self.others.get(1))
    }

    /// tufgate.
    pub fn tufgate(&self) -> &Server {
        &self.tufgate
    }

    /// Stops tufgate; its cache folder.
    pub fn stop_tufgate(&mut self) -> Outcome<PathBuf> {
        self.tufgate.stop();
        Ok(self.cache.clone())
    }

    /// Starts tufgate again on what it has. How long until it has answered.
    pub fn restart_tufgate(&mut self) -> Outcome<Duration> {
        self.tufgate.stop();
        let begun = Instant::now();
        let address = self.tufgate.address;
        self.tufgate = Server::start("tufgate", address, (self.start)())?;
        load::once(&self.tufgate, site::SMALL_PAGE, 1)?;
        Ok(begun.elapsed())
    }
}

/// An index of the files in a folder, on all cores.
pub fn index(folder: &Path, www: &Path) -> Outcome<Server> {
    let address = free()?;
    let server = format!(
        "access_log off; root {www}; index index.json;
        server {{ listen {address}; location /simple/ {{ default_type {accept}; types {{ }} }} }}",
        www = www.display(),
        accept = site::ACCEPT,
    );
    Server::start("index", address, nginx(&folder.join("index"), "0,1", &server)?)
}

/// tufgate with a configuration of its own, on all cores.
pub fn gate(binary: &Path, config: &Path) -> Outcome<Server> {
    let address = free()?;
    let mut command = pinned("0,1", &binary.display().to_string());
    command.arg("serve").arg("--config").arg(config).args(["--log-level", "warn", "--listen", &address.to_string()]);
    command.args(["--admin-listen", &free()?.to_string()]).stderr(Stdio::null());
    Server::start("tufgate", address, command)
}

fn tufgate_config(site: &Site, origin: &Origin, folder: &Path, address: SocketAddr) -> Outcome<String> {
    let (origin, folder) = (origin.server.address, folder.display());
    Ok(format!(
        r#"
        server.listen = "{address}"
        log.level = "warn"
        cache = {{ dir = "{folder}/cache" }}
        state.dir = "{folder}/state"
        admin.listen = "{}"
        [[repository]]
        name = "bench"
        root = "{}"
        metadata_url = "http://{origin}/metadata/"
        targets_url = "http://{origin}/targets/"
        [[mount]]
        name = "pypi"
        front = "pypi"
        repository = "bench"
        index_url = "http://{origin}/simple/"
        files_url = ["http://{origin}/packages/"]
        listing_path = "simple/{{project}}/index.json"
        "#,
        free()?,
        site.root().display(),
    ))
}

fn nginx_cache(site: &Site, origin: &Origin) -> Outcome<Server> {
    let (folder, address) = (fresh(&site.folder().join("nginx"))?, free()?);
    let server = format!(
        "access_log off; gzip on; gzip_proxied any; gzip_vary on; gzip_types {accept};
        proxy_cache_path {cache} levels=1:2 keys_zone=bench:16m max_size=20g inactive=1d use_temp_path=off;
        upstream origin {{ server {origin}; keepalive 16; }}
        server {{
            listen {address};
            location / {{
                proxy_pass http://origin;
                proxy_http_version 1.1;
                proxy_set_header Connection '';
                proxy_cache bench;
                proxy_cache_key $uri;
                proxy_cache_valid 200 1d;
                proxy_cache_lock on;
                proxy_cache_lock_timeout 60s;
                proxy_cache_lock_age 60s;
            }}
        }}",
        accept = site::ACCEPT,
        cache = folder.join("cache").display(),
        origin = origin.server.address,
    );
    Server::start("nginx", address, nginx(&folder, SERVER_CORE, &server)?)
}

/// One worker, sendfile, no access log but where it is the measure, and no `tcp_nopush`: it stalls cached files.
fn nginx(folder: &Path, cores: &str, http: &str) -> Outcome<Command> {
    fs::create_dir_all(folder)?;
    let config = folder.join("nginx.conf");
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
        .collect();
    let text = format!(
        "daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
        {user}
        events {{ worker_connections 4096; }}
        http {{
            sendfile on; tcp_nopush off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 600s;
            {paths}
            {http}
        }}",
        folder = folder.display(),
        user = if rustix::process::getuid().is_root() { "user root;" } else { "" },
    );
    fs::write(&config, text)?;
    let mut command = pinned(cores, "nginx");
    command.arg("-c").arg(&config).arg("-e").arg(folder.join("error.log"));
    Ok(command)
}

fn varnish(site: &Site, origin: &Origin) -> Outcome<Server> {
    let (folder, address) = (fresh(&site.folder().join("varnish"))?, free()?);
    let origin = origin.server.address;
    let vcl = format!(
        r#"vcl 4.1;
        backend origin {{ .host = "{}"; .port = "{}"; }}
        sub vcl_backend_response {{
            set beresp.ttl = 1d;
            if (beresp.http.Content-Type ~ "json") {{ set beresp.do_gzip = true; }}
        }}"#,
        origin.ip(),
        origin.port(),
    );
    let config = folder.join("bench.vcl");
    fs::write(&config, vcl)?;
    let mut command = pinned(SERVER_CORE, "varnishd");
    command.arg("-F").arg("-n").arg(folder.join("work")).args(["-j", "none", "-a", &address.to_string()]);
    command.arg("-f").arg(&config).args(["-s", "malloc,4g"]).stdout(Stdio::null()).stderr(Stdio::null());
    Server::start("varnish", address, command)
}

fn pinned(cores: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores, program]);
    command
}

/// An empty folder in place of what was there.
fn fresh(folder: &Path) -> Outcome<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    Ok(folder.to_owned())
}

/// An address on loopback that nobody listens on.
pub fn free() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
