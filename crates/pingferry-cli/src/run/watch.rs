//! Ending with the network namespace that is served: with its process, or with the file that names it.
//!
//! The kernel keeps a namespace as long as a queue of a device in it is open. So the proxy does not notice that all
//! clients are gone, and would keep the namespace for ever.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::Duration;

use pingferry::Control;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tracing::{info, warn};

use crate::config::model::Ingress;
use crate::error::CliError;

/// How often to look whether a file still names the namespace. No event tells that a file of another file system was
/// unmounted or replaced.
const INTERVAL: Duration = Duration::from_secs(1);

/// What stops the proxy when it ends.
pub(super) enum Watched {
    Process(Process),
    File(NamespaceFile),
}

impl Watched {
    /// What names the namespace of an ingress; `None` for the own one.
    ///
    /// # Errors
    /// There is no such process or file.
    pub(super) fn open(ingress: &Ingress) -> Result<Option<Self>, CliError> {
        match (ingress.pid, &ingress.netns) {
            (Some(pid), _) => Process::open(pid).map(Self::Process).map(Some),
            (None, Some(path)) => match process_of(path) {
                Some(pid) => Process::open(pid).map(Self::Process).map(Some),
                None => NamespaceFile::open(path).map(Self::File).map(Some),
            },
            (None, None) => Ok(None),
        }
    }

    /// # Errors
    /// It has ended already, so that its name can be that of another one.
    pub(super) fn check(&self) -> Result<(), CliError> {
        match self.has_ended() {
            true => Err(CliError::runtime(self.end())),
            false => Ok(()),
        }
    }

    /// Stops the proxy when it ends.
    pub(super) fn stop_at_its_end(self, control: Control) -> Result<(), CliError> {
        let wait = move || {
            self.wait();
            info!("{}", self.end());
            control.stop();
        };
        let thread = thread::Builder::new().name("namespace".into()).spawn(wait);
        thread.map(drop).map_err(|error| CliError::runtime(format!("cannot watch the namespace: {error}")))
    }

    fn has_ended(&self) -> bool {
        match self {
            Self::Process(process) => process.has_ended(Some(&Timespec::default())),
            Self::File(file) => file.is_gone(),
        }
    }

    fn wait(&self) {
        match self {
            Self::Process(process) => while !process.has_ended(None) {},
            Self::File(file) => {
                while !file.is_gone() {
                    thread::sleep(INTERVAL);
                }
            }
        }
    }

    /// What has happened, for messages.
    fn end(&self) -> String {
        match self {
            Self::Process(process) => format!("process {} has ended", process.pid),
            Self::File(file) => format!("network namespace {} was deleted", file.path.display()),
        }
    }
}

/// The process in a path such as `/proc/4711/ns/net`. The path stays until the process has ended, and a confined process
/// cannot look at it.
fn process_of(path: &Path) -> Option<u32> {
    let mut components = path.components();
    let begins = components.next()? == Component::RootDir && components.next()?.as_os_str() == "proc";
    components.next().filter(|_| begins)?.as_os_str().to_str()?.parse().ok()
}

/// A process.
pub(super) struct Process {
    pid: u32,
    /// `None` if the kernel does not let it be watched: it is older than 5.3, or forbids it in this container.
    pidfd: Option<OwnedFd>,
}

impl Process {
    fn open(pid: u32) -> Result<Self, CliError> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH);
        match number.and_then(|number| pidfd_open(number, PidfdFlags::empty())) {
            Ok(pidfd) => Ok(Self { pid, pidfd: Some(pidfd) }),
            Err(error @ Errno::SRCH) => {
                Err(CliError::runtime(format!("process {pid}: {error}; to list processes, run: ps -e")))
            }
            Err(error) => {
                warn!("pingferry will go on when process {pid} has ended: {error}");
                Ok(Self { pid, pidfd: None })
            }
        }
    }

    /// Waits until it has ended, at most for `timeout`. Says whether it has.
    fn has_ended(&self, timeout: Option<&Timespec>) -> bool {
        match &self.pidfd {
            Some(pidfd) => poll(&mut [PollFd::new(pidfd, PollFlags::IN)], timeout).is_ok_and(|ready| ready > 0),
            None => {
                // Nothing tells its end.
                if timeout.is_none() {
                    thread::park();
                }
                false
            }
        }
    }
}

/// A file that names a network namespace, such as those of `ip netns`.
pub(super) struct NamespaceFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl NamespaceFile {
    fn open(path: &Path) -> Result<Self, CliError> {
        let no_file = |error: io::Error| {
            let fix = "to list namespaces, run: ip netns";
            CliError::runtime(format!("network namespace {}: {error}; {fix}", path.display()))
        };
        let metadata = fs::metadata(path).map_err(no_file)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// Whether the file is gone or names another namespace. A file that cannot be looked at is not.
    fn is_gone(&self) -> bool {
        let is_other = |metadata: Metadata| (metadata.dev(), metadata.ino()) != (self.device, self.inode);
        match fs::metadata(&self.path) {
            Ok(metadata) => is_other(metadata),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_proc_is_that_of_a_process() {
        for (path, pid) in [
            ("/proc/4711/ns/net", Some(4711)),
            ("/proc/4711/fd/3", Some(4711)),
            ("/proc/self/ns/net", None),
            ("/run/netns/4711", None),
            ("/run/proc/4711", None),
            ("proc/4711", None),
        ] {
            assert_eq!(process_of(path.as_ref()), pid, "{path}");
        }
    }
}
