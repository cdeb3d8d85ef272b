//! A gate that runs out of file descriptors.

use std::{fs, net::TcpStream, thread, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use super::{Trial, assert_served};
use crate::harness::{
    gate::Gate,
    http::{Conversation, Reply},
    world::gate_path,
};

/// Descriptors that are free at first in one round; the first rounds have not even one for the connection.
const FREE_MAX: u64 = 10;

fn open_files(gate: &Gate) -> u64 {
    let folder = format!("/proc/{}/fd", gate.pid().as_raw_nonzero());
    fs::read_dir(folder).unwrap().count() as u64
}

fn limit(gate: &Gate, files: Option<u64>) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = files.or(maximum);
    prlimit(Some(gate.pid()), Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

fn lines_of_trouble(gate: &Gate) -> usize {
    gate.log().iter().filter(|line| line.contains("cannot accept")).count()
}

#[test]
#[cfg(target_os = "linux")]
fn a_gate_out_of_file_descriptors_degrades_step_by_step_and_heals() {
    let trial = Trial::new();
    let gate = trial.configuration().start();
    trial.settle(&gate);
    for free in 0..FREE_MAX {
        // Something new each time, so that a file and an upstream are needed.
        let wheel = &trial.during[usize::try_from(free).unwrap() % trial.during.len()];
        limit(&gate, Some(open_files(&gate) + free));
        let waiting: Vec<_> = [wheel, &trial.before]
            .map(|wheel| {
                let mut open = Conversation::open(gate.address);
                open.ask("GET", &gate_path(wheel), &[]);
                (wheel, thread::spawn(move || open.reply("GET")))
            })
            .into();
        thread::sleep(Duration::from_millis(120));
        limit(&gate, None);
        for (wheel, reply) in waiting {
            let reply: Reply = reply.join().unwrap().unwrap();
            match reply.status {
                200 => assert!(reply.whole && reply.body == wheel.bytes, "{free} free"),
                502 | 503 => assert!(reply.header("retry-after").is_some(), "{free} free: {}", reply.phrase),
                other => panic!("{free} free: {other} {}", reply.phrase),
            }
        }
        assert_served(&gate, wheel);
    }
    // It rests between two tries: a loop without a rest would say so thousands of times.
    let said = lines_of_trouble(&gate);
    assert!((1..100).contains(&said), "{said} lines say that nothing can be accepted");
    trial.assert_healed(&gate);
}

#[test]
#[cfg(target_os = "linux")]
fn connections_that_do_nothing_take_no_descriptor_that_a_file_or_an_upstream_needs() {
    let trial = Trial::new();
    let config = trial.configuration().set("server.connections_per_client_max", 4_096).write();
    let mut command = crate::harness::installers::isolated("prlimit".as_ref(), config.parent().unwrap());
    command.arg("--nofile=700:700").arg(crate::harness::gate::binary());
    command.arg("serve").arg("--config").arg(&config).current_dir(config.parent().unwrap());
    let gate = Gate::spawn(command, &config).unwrap();
    gate.await_ready();
    let log = gate.log();
    assert!(log.iter().any(|line| line.contains("too few files")), "{log:?}");

    // More than it may open files.
    let idle: Vec<TcpStream> = (0..800).map(|_| TcpStream::connect(gate.address).unwrap()).collect();
    for wheel in [&trial.before, &trial.during[0]] {
        assert_served(&gate, wheel);
    }
    assert!(open_files(&gate) < 600, "{} files are open", open_files(&gate));
    assert_eq!(lines_of_trouble(&gate), 0, "it never ran out");
    drop(idle);
    trial.assert_healed(&gate);
}
