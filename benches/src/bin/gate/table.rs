//! The table: medians, and their ratios to nginx's.

use std::{fmt, time::Duration};

use crate::load::Measured;

/// The servers in the order of all columns.
const COLUMNS: [&str; 3] = ["nginx", "tufgate", "varnish"];

/// One herd.
#[derive(Clone, Copy, Debug)]
pub struct Herd {
    /// Until all were done.
    pub seconds: f64,
    /// The median of the first bytes.
    pub first_byte: f64,
    /// Requests that reached the origin.
    pub fetches: usize,
}

/// Rows as they are found out.
#[derive(Default)]
pub struct Table(Vec<[String; 5]>);

impl Table {
    /// Answers a second, and microseconds of CPU for each.
    pub fn requests(&mut self, name: &str, measured: &[Vec<Measured>]) {
        let rate = |one: &Measured| one.requests / one.seconds;
        let cells = measured.iter().map(|rounds| {
            let cpu = of(rounds, |one| one.cpu / one.requests * 1e6);
            format!("{:.0}/s, {cpu:.1} µs", of(rounds, rate))
        });
        self.add(name, cells.collect(), ratio(measured, rate));
    }

    /// Megabytes a second, and milliseconds of CPU for each gigabyte.
    pub fn throughput(&mut self, name: &str, measured: &[Vec<Measured>]) {
        let rate = |one: &Measured| one.bytes / one.seconds / 1e6;
        let cells = measured.iter().map(|rounds| {
            let cpu = of(rounds, |one| one.cpu / one.bytes * 1e12);
            format!("{:.0} MB/s, {cpu:.0} ms/GB", of(rounds, rate))
        });
        self.add(name, cells.collect(), ratio(measured, rate));
    }

    /// Seconds until all are done.
    pub fn herd(&mut self, name: &str, herds: &[Vec<Herd>]) {
        let cells = herds.iter().map(|rounds| {
            let fetches = rounds.iter().map(|herd| herd.fetches).max().unwrap_or_default();
            let (all, first) = (of(rounds, |herd| herd.seconds), of(rounds, |herd| herd.first_byte));
            format!("{all:.2} s, first byte {first:.3} s, {fetches} fetches")
        });
        self.add(name, cells.collect(), ratio(herds, |herd| 1.0 / herd.seconds));
    }

    /// MiB.
    pub fn memory(&mut self, name: &str, peaks: &[f64]) {
        let ratio = peaks.get(1).zip(peaks.first()).map(|(ours, nginx)| ours / nginx);
        self.add(name, peaks.iter().map(|peak| format!("{peak:.0} MiB")).collect(), ratio);
    }

    /// tufgate's own times.
    pub fn start(&mut self, name: &str, times: &[Duration]) {
        let time = of(times, |time| time.as_secs_f64() * 1e3);
        self.add(name, vec![String::new(), format!("{time:.1} ms"), String::new()], None);
    }

    /// Times of a client: without and with the gate between.
    pub fn installer(&mut self, name: &str, direct: &[f64], gate: &[f64], cpu: &[f64]) {
        let (direct, ours) = (of(direct, |time| *time), of(gate, |time| *time));
        let cpu = if cpu.is_empty() { String::new() } else { format!(", {:.2} s CPU", of(cpu, |cpu| *cpu)) };
        let cells = vec![format!("direct {direct:.2} s"), format!("{ours:.2} s{cpu}")];
        self.add(name, cells, Some(ours / direct));
    }

    fn add(&mut self, name: &str, cells: Vec<String>, ratio: Option<f64>) {
        let cell = |at: usize| cells.get(at).cloned().unwrap_or_default();
        let ratio = ratio.map(|ratio| format!("{ratio:.2}×")).unwrap_or_default();
        let row = [name.to_owned(), cell(0), cell(1), ratio, cell(2)];
        eprintln!("gate: {}", row.join(" | "));
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [nginx, tufgate, varnish] = COLUMNS;
        writeln!(f, "| work | {nginx} | {tufgate} | {tufgate} to {nginx} | {varnish} |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        self.0.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

/// How much more the second does than the first.
fn ratio<T>(measured: &[Vec<T>], value: impl Fn(&T) -> f64) -> Option<f64> {
    Some(of(measured.get(1)?, &value) / of(measured.first()?, &value))
}

fn of<T>(rounds: &[T], value: impl Fn(&T) -> f64) -> f64 {
    median(&mut rounds.iter().map(value).collect::<Vec<_>>())
}

/// The median; 0 of nothing.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
