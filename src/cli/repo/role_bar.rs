//! Long work with roles, on a terminal.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

use crate::repository::progress::{Progress, Work};

/// So many roles are done before anybody notices.
const SHOWN_FROM: u64 = 500;

/// A bar for each piece of work, where there are very many roles. Elsewhere than on a terminal nothing is drawn.
#[derive(Debug)]
pub(super) struct RoleBar {
    bar: ProgressBar,
}

impl RoleBar {
    pub(super) fn new() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    /// Takes the bar off the terminal, when it is dropped at the latest.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for RoleBar {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Progress for RoleBar {
    fn begin(&self, work: Work, roles: u64) {
        self.clear();
        if roles < SHOWN_FROM || !std::io::stderr().is_terminal() {
            return;
        }
        let what = match work {
            Work::Signing => "signing   ",
            Work::Verifying => "verifying ",
            Work::Reading => "reading   ",
        };
        if let Ok(style) = ProgressStyle::with_template("{prefix}[{bar:30}] {pos}/{len} roles, {eta} left") {
            self.bar.set_style(style.progress_chars("=> "));
        }
        self.bar.reset();
        self.bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        self.bar.set_prefix(what);
        self.bar.set_length(roles);
    }

    fn advance(&self) {
        self.bar.inc(1);
    }
}
