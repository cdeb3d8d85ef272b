//! A door for tests: every operation on a folder of our own asks here first.

use std::io;

/// Decides whether the next operation on a folder fails. In the product nothing ever does.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    #[cfg(any(test, feature = "testing"))]
    plan: std::sync::Arc<plan::Plan>,
}

#[cfg(not(any(test, feature = "testing")))]
impl Faults {
    /// Asked before each operation, with its name.
    #[inline]
    pub(crate) fn strike(&self, _operation: &'static str) -> io::Result<()> {
        Ok(())
    }

    /// Whether the process counts as killed: nothing more happens, no cleaning up either.
    #[inline]
    pub(crate) fn is_dead(&self) -> bool {
        false
    }
}

#[cfg(any(test, feature = "testing"))]
impl Faults {
    /// Asked before each operation, with its name.
    pub(crate) fn strike(&self, operation: &'static str) -> io::Result<()> {
        self.plan.strike(operation)
    }

    /// Whether the process counts as killed: nothing more happens, no cleaning up either.
    pub(crate) fn is_dead(&self) -> bool {
        self.plan.is_dead()
    }
}

#[cfg(any(test, feature = "testing"))]
mod plan {
    use std::{
        io,
        sync::{Mutex, MutexGuard},
    };

    use rustix::io::Errno;

    use super::Faults;
    use crate::base::lock;

    #[derive(Debug, Default)]
    pub(super) struct Plan(Mutex<State>);

    #[derive(Debug, Default)]
    struct State {
        count: u64,
        fail: Option<Fail>,
        dead: bool,
    }

    #[derive(Debug)]
    struct Fail {
        errno: Errno,
        only: Option<&'static str>,
        from: u64,
        times: u64,
        kills: bool,
    }

    impl Plan {
        fn state(&self) -> MutexGuard<'_, State> {
            lock(&self.0)
        }

        pub(super) fn strike(&self, operation: &'static str) -> io::Result<()> {
            let mut state = self.state();
            let state = &mut *state;
            let Some(fail) = &mut state.fail else {
                state.count += 1;
                return Ok(());
            };
            if fail.only.is_some_and(|only| only != operation) {
                return Ok(());
            }
            let index = state.count;
            state.count += 1;
            if index < fail.from || fail.times == 0 {
                return Ok(());
            }
            fail.times -= 1;
            state.dead |= fail.kills;
            Err(fail.errno.into())
        }

        pub(super) fn is_dead(&self) -> bool {
            self.state().dead
        }
    }

    impl Faults {
        /// From the `from`-th operation on (of the name `only`, where given), the next `times` fail with `errno`.
        pub fn fail(&self, errno: Errno, only: Option<&'static str>, from: u64, times: u64) {
            let fail = Fail { errno, only, from, times, kills: false };
            *self.plan.state() = State { fail: Some(fail), ..State::default() };
        }

        /// The process is killed at the `from`-th operation: neither that one nor any later one is carried out, and what
        /// lies half-written stays.
        pub fn kill(&self, from: u64) {
            let fail = Fail { errno: Errno::IO, only: None, from, times: u64::MAX, kills: true };
            *self.plan.state() = State { fail: Some(fail), ..State::default() };
        }

        /// The disk is well again.
        pub fn heal(&self) {
            *self.plan.state() = State::default();
        }

        /// Operations since the last change of the plan; of one name alone where the plan names one.
        pub fn operations(&self) -> u64 {
            self.plan.state().count
        }
    }
}
