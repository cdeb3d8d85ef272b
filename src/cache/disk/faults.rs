//! A door for tests: every operation on the cache folder asks here first.

use std::io;

/// Decides whether the next operation on the folder fails. In the product nothing ever does.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    #[cfg(any(test, feature = "testing"))]
    plan: std::sync::Arc<plan::Plan>,
}

impl Faults {
    /// Asked before each operation, with its name.
    #[cfg(not(any(test, feature = "testing")))]
    #[inline]
    pub(super) fn strike(&self, _operation: &'static str) -> io::Result<()> {
        Ok(())
    }

    /// Asked before each operation, with its name.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn strike(&self, operation: &'static str) -> io::Result<()> {
        self.plan.strike(operation)
    }
}

#[cfg(any(test, feature = "testing"))]
mod plan {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use rustix::io::Errno;

    use super::Faults;

    #[derive(Debug, Default)]
    pub(super) struct Plan(Mutex<State>);

    #[derive(Debug, Default)]
    struct State {
        count: u64,
        fail: Option<Fail>,
    }

    #[derive(Debug)]
    struct Fail {
        errno: Errno,
        only: Option<&'static str>,
        from: u64,
        times: u64,
    }

    impl Plan {
        pub(super) fn strike(&self, operation: &'static str) -> io::Result<()> {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
            Err(fail.errno.into())
        }
    }

    impl Faults {
        /// From the `from`-th operation on (of the name `only`, where given), the next `times` fail with `errno`.
        pub fn fail(&self, errno: Errno, only: Option<&'static str>, from: u64, times: u64) {
            let mut state = self.plan.0.lock().unwrap_or_else(PoisonError::into_inner);
            *state = State { count: 0, fail: Some(Fail { errno, only, from, times }) };
        }

        /// The disk is well again.
        pub fn heal(&self) {
            *self.plan.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
        }

        /// Operations since the last [`Faults::fail`] or [`Faults::heal`].
        pub fn operations(&self) -> u64 {
            self.plan.0.lock().unwrap_or_else(PoisonError::into_inner).count
        }
    }
}
