//! Progress of long work: a bar on a terminal, elsewhere a line each some seconds.

use std::{
    io::IsTerminal as _,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::approve::Progress;

/// How often a line is printed where there is no terminal. Short work prints none.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar for what is done at a time: reading folders, looking up, downloading; or lines.
#[derive(Debug)]
pub(in crate::cli) struct Bars {
    bar: ProgressBar,
    lines: Option<Mutex<Lines>>,
}

/// What a line says, and when the last one was printed.
#[derive(Debug)]
struct Lines {
    last: Instant,
    /// Projects, or files.
    total: usize,
    done: usize,
    /// Bytes of files; `None` while projects are looked up.
    bytes: Option<u64>,
}

impl Bars {
    pub(in crate::cli) fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let lines = Lines { last: Instant::now(), total: 0, done: 0, bytes: None };
        Self {
            bar: if is_terminal { ProgressBar::no_length() } else { ProgressBar::hidden() },
            lines: (!is_terminal).then(|| Mutex::new(lines)),
        }
    }

    /// Takes the bar off the terminal.
    pub(in crate::cli) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
    }

    fn begin_files(&self, verb: &str, files: usize, bytes: u64) {
        self.style(&format!("{verb} [{{bar:30}}] {{bytes}}/{{total_bytes}} {{bytes_per_sec}} {{wide_msg}}"));
        self.bar.set_position(0);
        self.bar.set_length(bytes);
        self.note(|lines| (lines.total, lines.done, lines.bytes) = (files, 0, Some(0)));
    }

    /// Notes what happened, and prints a line where one is due.
    fn note(&self, change: impl FnOnce(&mut Lines)) {
        let Some(lines) = &self.lines else { return };
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut lines);
        if let Some(line) = lines.due(Instant::now()) {
            eprintln!("tufgate: {line}");
        }
    }
}

impl Lines {
    fn due(&mut self, now: Instant) -> Option<String> {
        if now.saturating_duration_since(self.last) < LINE_EVERY {
            return None;
        }
        self.last = now;
        Some(match self.bytes {
            None => format!("looked up {} of {} projects", self.done, self.total),
            Some(bytes) => format!("checked {} of {} files, {} so far", self.done, self.total, HumanBytes(bytes)),
        })
    }
}

impl Progress for Bars {
    fn looking_up(&self, projects: usize) {
        self.style("looking up  [{bar:30}] {pos}/{len} {wide_msg}");
        self.bar.set_length(projects as u64);
        self.note(|lines| (lines.total, lines.done, lines.bytes) = (projects, 0, None));
    }

    fn looked_up(&self, project: &str) {
        self.bar.set_message(project.to_owned());
        self.bar.inc(1);
        self.note(|lines| lines.done = lines.done.saturating_add(1));
    }

    fn reading(&self, files: usize, bytes: u64) {
        self.begin_files("reading    ", files, bytes);
    }

    fn downloading(&self, files: usize, bytes: u64) {
        self.begin_files("downloading", files, bytes);
    }

    fn received(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.note(|lines| lines.bytes = Some(lines.bytes.unwrap_or_default().saturating_add(bytes)));
    }

    fn checked(&self, filename: &str) {
        self.bar.set_message(filename.to_owned());
        self.note(|lines| lines.done = lines.done.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_every_ten_seconds_and_says_how_far_it_is() {
        let start = Instant::now();
        let mut lines = Lines { last: start, total: 7, done: 2, bytes: Some(3 << 20) };
        assert_eq!(lines.due(start + Duration::from_secs(9)), None);
        assert_eq!(lines.due(start + Duration::from_secs(10)).unwrap(), "checked 2 of 7 files, 3.00 MiB so far");
        assert_eq!(lines.due(start + Duration::from_secs(19)), None);
        lines.bytes = None;
        assert_eq!(lines.due(start + Duration::from_secs(20)).unwrap(), "looked up 2 of 7 projects");
    }
}
