//! Files that have no name until they are whole, where the system has such: nobody else can open them, and nothing is
//! left of them after a crash.

pub(super) use system::{create, link};

#[cfg(target_os = "linux")]
mod system {
    use std::{
        fs::File,
        os::fd::{AsRawFd as _, OwnedFd},
    };

    use rustix::fs::{AtFlags, CWD, Mode, OFlags};

    /// A file in `folder` that has no name.
    pub(in super::super) fn create(folder: &OwnedFd) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(folder, ".", OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
    }

    /// Gives it one.
    pub(in super::super) fn link(file: &File, folder: &OwnedFd, name: &str) -> rustix::io::Result<()> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, path.as_str(), folder, name, AtFlags::SYMLINK_FOLLOW)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::{fs::File, os::fd::OwnedFd};

    use rustix::io::Errno;

    /// Only Linux has files without a name.
    pub(in super::super) fn create(_folder: &OwnedFd) -> rustix::io::Result<OwnedFd> {
        Err(Errno::NOTSUP)
    }

    /// Never called: there is none to link.
    pub(in super::super) fn link(_file: &File, _folder: &OwnedFd, _name: &str) -> rustix::io::Result<()> {
        Err(Errno::NOTSUP)
    }
}
