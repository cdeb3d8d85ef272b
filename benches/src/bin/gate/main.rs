//! tufgate beside nginx's proxy_cache and Varnish: the same files, the same origin, the same client, in turns.
//!
//! `benches/gate/run` builds what is needed and starts this program; `--help` says what can be left out. Everything lies
//! in a temporary folder and listens on free ports of loopback. The servers are held to one core and the client to the
//! other; each figure is the median of several rounds in which every server is asked in turn.

mod installers;
mod load;
mod servers;
mod site;
mod table;

use std::{
    env,
    error::Error,
    io::{self, Read as _},
    path::PathBuf,
    time::Duration,
};

use rustix::thread::{CpuSet, sched_setaffinity};

use load::{Client, Measured};
use servers::{Origin, Server, Servers};
use site::Site;
use table::Table;

/// What goes wrong ends the run.
pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The core of the servers.
const SERVER_CORE: &str = "0";
/// The core of the client.
const CLIENT_CORE: usize = 1;

const HELP: &str = "\
gate [--tufgate FILE] [--rounds N] [--seconds N] [--only WORD]... [--million] [--python FILE]
  --tufgate FILE  the binary to measure (target/release/tufgate)
  --rounds N      rounds of each row (5)
  --seconds N     seconds of one measurement (2)
  --only WORD     only these: index, large-index, wheel, large, cold, herd, memory, start, installers
  --hold          starts the servers, says where they listen, and ends at the end of stdin: for a profiler
  --million       start with a million cached files, too; takes a minute and a million inodes
  --python FILE   an interpreter with pip and uv, for the rows of installers";

/// What the command line says.
pub struct Arguments {
    tufgate: PathBuf,
    rounds: usize,
    window: Duration,
    only: Vec<String>,
    hold: bool,
    million: bool,
    python: Option<PathBuf>,
}

impl Arguments {
    fn read() -> Outcome<Self> {
        let mut arguments = Self {
            tufgate: "target/release/tufgate".into(),
            rounds: 5,
            window: Duration::from_secs(2),
            only: Vec::new(),
            hold: false,
            million: false,
            python: None,
        };
        let mut given = env::args().skip(1);
        while let Some(flag) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--tufgate" => arguments.tufgate = value()?.into(),
                "--rounds" => arguments.rounds = value()?.parse()?,
                "--seconds" => arguments.window = Duration::from_secs(value()?.parse()?),
                "--only" => arguments.only.push(value()?),
                "--hold" => arguments.hold = true,
                "--million" => arguments.million = true,
                "--python" => arguments.python = Some(value()?.into()),
                _ => return Err(HELP.into()),
            }
        }
        arguments.tufgate = arguments.tufgate.canonicalize()?;
        Ok(arguments)
    }

    fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == row)
    }
}

fn main() -> Outcome {
    let arguments = Arguments::read()?;
    let mut core = CpuSet::new();
    core.set(CLIENT_CORE);
    sched_setaffinity(None, &core)?;
    let folder = tempfile::tempdir()?;
    eprintln!("gate: making files in {}", folder.path().display());
    let site = Site::make(folder.path(), arguments.rounds)?;
    let origin = Origin::start(&site)?;
    if arguments.hold {
        return hold(&site, &origin, &arguments);
    }
    let mut table = Table::default();
    if ["index", "large-index", "wheel", "large", "cold", "herd"].iter().any(|row| arguments.wants(row)) {
        let servers = Servers::start(&site, &origin, &arguments.tufgate)?;
        warm(&arguments, &servers, &mut table)?;
        cold(&arguments, &site, &servers, &origin, &mut table)?;
    }
    if arguments.wants("memory") {
        memory(&arguments, &site, &origin, &mut table)?;
    }
    if arguments.wants("start") {
        start(&arguments, &site, &origin, &mut table)?;
    }
    if let Some(python) = arguments.python.as_ref().filter(|_| arguments.wants("installers")) {
        installers::compare(&arguments, python, folder.path(), &mut table)?;
    }
    println!("\n{table}");
    Ok(())
}

fn hold(site: &Site, origin: &Origin, arguments: &Arguments) -> Outcome {
    let servers = Servers::start(site, origin, &arguments.tufgate)?;
    for server in servers.all() {
        println!("{} http://{} pid {}", server.name, server.address(), server.pid());
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Rows of what every server has already.
fn warm(arguments: &Arguments, servers: &Servers, table: &mut Table) -> Outcome {
    let json = site::ACCEPT;
    if arguments.wants("index") {
        for connections in [1, 16, 64] {
            let client = Client::new(site::SMALL_PAGE, connections).header("Accept", json);
            let measured = in_turns(arguments, servers, &client)?;
            table.requests(&format!("warm 9 KB index, {connections} connections"), &measured);
        }
    }
    if arguments.wants("large-index") {
        for (name, coding) in
            [("plain", None), ("gzip (pip)", Some("gzip, deflate")), ("zstd (uv)", Some("gzip, zstd"))]
        {
            let client = Client::new(site::LARGE_PAGE, 16).header("Accept", json);
            let client = coding.into_iter().fold(client, |client, coding| client.header("Accept-Encoding", coding));
            let row = format!("warm 1.2 MB index, {name}, 16 connections");
            let measured = in_turns(arguments, servers, &client)?;
            table.requests(&row, &measured);
        }
    }
    if arguments.wants("wheel") {
        let client = Client::new(&site::wheel_path("small"), 16);
        let measured = in_turns(arguments, servers, &client)?;
        table.requests("warm 97 KB wheel, 16 connections", &measured);
    }
    if arguments.wants("large") {
        for (name, wheel) in [("35 MB", "medium"), ("500 MB", "large")] {
            let client = Client::new(&site::wheel_path(wheel), 64);
            let measured = in_turns(arguments, servers, &client)?;
            table.throughput(&format!("warm {name} wheel, 64 connections"), &measured);
        }
    }
    Ok(())
}

/// The same of every server, round by round; what each answers is fetched once before.
fn in_turns(arguments: &Arguments, servers: &Servers, client: &Client) -> Outcome<Vec<Vec<Measured>>> {
    let all: Vec<&Server> = servers.all().collect();
    for server in &all {
        eprintln!("gate: {} answers with {} bytes", server.name, client.warm_up(server)?);
    }
    let mut measured = vec![Vec::new(); all.len()];
    for _ in 0..arguments.rounds {
        for (server, rounds) in all.iter().zip(&mut measured) {
            rounds.push(client.measure(server, arguments.window)?);
        }
    }
    Ok(measured)
}

/// Rows of what nobody has yet.
fn cold(arguments: &Arguments, site: &Site, servers: &Servers, origin: &Origin, table: &mut Table) -> Outcome {
    if arguments.wants("cold") {
        servers.all().try_for_each(Server::use_both_cores)?;
        let mut measured = vec![Vec::new(); servers.all().count()];
        for round in 0..arguments.rounds {
            for (server, rounds) in servers.all().zip(&mut measured) {
                rounds.push(load::once(server, &site::wheel_path(&site.cold(round)), 1)?.0);
            }
        }
        table.throughput("cold 35 MB wheel, both cores (tufgate: verified and synced)", &measured);
        servers.all().try_for_each(Server::use_one_core)?;
    }
    if arguments.wants("herd") {
        let alone = load::once(origin.server(), &site.slow(0), 1)?.0;
        eprintln!("gate: the origin alone takes {:.2} s at 20 MB/s", alone.seconds);
        servers.all().try_for_each(Server::use_both_cores)?;
        let mut herds = vec![Vec::new(); servers.all().count()];
        for round in 0..arguments.rounds.min(site::HERDS) {
            for (server, rounds) in servers.all().zip(&mut herds) {
                let before = origin.fetches(&site.slow(round))?;
                let (measured, first_byte) = load::once(server, &site.slow(round), 100)?;
                let fetches = origin.fetches(&site.slow(round))? - before;
                rounds.push(table::Herd { seconds: measured.seconds, first_byte, fetches });
            }
        }
        table.herd("100 cold clients for one 35 MB wheel, upstream at 20 MB/s", &herds);
        servers.all().try_for_each(Server::use_one_core)?;
    }
    Ok(())
}

/// Peak memory of a server that was started for it.
fn memory(arguments: &Arguments, site: &Site, origin: &Origin, table: &mut Table) -> Outcome {
    for (name, wheel) in [("35 MB", "medium"), ("500 MB", "large")] {
        let servers = Servers::start(site, origin, &arguments.tufgate)?;
        let client = Client::new(&site::wheel_path(wheel), 64);
        let mut peaks = Vec::new();
        for server in servers.all() {
            client.warm_up(server)?;
            client.measure(server, arguments.window)?;
            peaks.push(server.peak_memory()?);
        }
        table.memory(&format!("peak memory, 64 connections on the {name} wheel"), &peaks);
    }
    Ok(())
}

/// From the start of the process to the first answer from stored metadata.
fn start(arguments: &Arguments, site: &Site, origin: &Origin, table: &mut Table) -> Outcome {
    let page = |servers: &Servers| load::once(servers.tufgate(), site::SMALL_PAGE, 1).map(drop);
    let mut servers = Servers::start_tufgate_alone(site, origin, &arguments.tufgate)?;
    page(&servers)?;
    let mut times = Vec::new();
    for _ in 0..arguments.rounds.max(9) {
        times.push(servers.restart_tufgate()?);
    }
    table.start("start to first answer, stored metadata", &times);
    if arguments.million {
        let cache = servers.stop_tufgate()?;
        eprintln!("gate: making a million cached files");
        site::million(&cache)?;
        let times: Vec<Duration> = (0..3).map(|_| servers.restart_tufgate()).collect::<Outcome<_>>()?;
        table.start("start to first answer, a million cached files", &times);
    }
    Ok(())
}
