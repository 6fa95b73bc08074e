//! Files that a user names.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file to read it. Opening or reading any other may wait for ever, for example for the writer of a FIFO.
///
/// # Errors
///
/// Those of open(2), and `Other` for a directory, a device, a FIFO or a socket.
///
/// # Examples
///
/// ```
/// use pingferry_sys::file::open_regular_file;
///
/// let text = std::io::read_to_string(open_regular_file("/proc/self/status")?)?;
/// assert!(text.starts_with("Name:"));
/// assert!(open_regular_file("/dev/zero").is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn open_regular_file(path: impl AsRef<Path>) -> io::Result<File> {
    let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(without_waiting).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it must be a regular file")),
    }
}
