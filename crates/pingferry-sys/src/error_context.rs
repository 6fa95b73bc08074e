//! Kernel errors that name the operation that failed.
//!
//! An `io::Error` holds either an errno or a text. An error of [`with_context`] holds both: a text for people, such as
//! "add address 10.0.0.1/24 to ping0: File exists (os error 17)", and the number that [`errno`] returns. An error of
//! [`with_advice`] says behind that what to do.

use std::error::Error;
use std::fmt::{self, Display};
use std::io;

/// What [`with_context`] and [`with_advice`] put into an error.
#[derive(Debug)]
struct Described {
    text: String,
    errno: Option<i32>,
}

impl Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Described {}

/// Prefixes `error` with the operation that failed. Kind and errno stay the same.
pub(crate) fn with_context(error: impl Into<io::Error>, operation: impl Into<String>) -> io::Error {
    let (error, operation) = (error.into(), operation.into());
    described(error.kind(), format!("{operation}: {error}"), errno(&error))
}

/// Adds advice behind `error`. The errno stays the same. The kind becomes `PermissionDenied` if a permission is missing.
pub(crate) fn with_advice(error: &io::Error, advice: impl Display, is_permission: bool) -> io::Error {
    let kind = if is_permission { io::ErrorKind::PermissionDenied } else { error.kind() };
    described(kind, format!("{error}; {advice}"), errno(error))
}

fn described(kind: io::ErrorKind, text: String, errno: Option<i32>) -> io::Error {
    io::Error::new(kind, Described { text, errno })
}

/// The errno of an error, or `None` if the kernel did not cause it.
///
/// [`io::Error::raw_os_error`] returns `None` for most errors of this crate, because their text names the operation
/// that failed. This function also finds the errno of those (errno(3)).
///
/// # Examples
///
/// ```
/// use pingferry_sys::errno;
/// use pingferry_sys::netlink::Netlink;
///
/// let error = Netlink::open()?.index("missing0").unwrap_err();
/// assert_eq!(error.to_string(), "look up missing0: No such device (os error 19)");
/// assert_eq!(errno(&error), Some(19)); // ENODEV
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| error.get_ref()?.downcast_ref::<Described>()?.errno)
}

/// What is transferred of an error to another process: its errno, whether a permission is missing, and its text.
pub(crate) fn into_parts(error: &io::Error) -> (Option<i32>, bool, String) {
    (errno(error), error.kind() == io::ErrorKind::PermissionDenied, error.to_string())
}

/// The inverse of [`into_parts`].
pub(crate) fn from_parts(errno: Option<i32>, is_permission: bool, text: String) -> io::Error {
    let kind = match errno.map(io::Error::from_raw_os_error) {
        _ if is_permission => io::ErrorKind::PermissionDenied,
        Some(error) => error.kind(),
        None => io::ErrorKind::Other,
    };
    described(kind, text, errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_kind_and_errno_survive_two_layers() {
        let error = with_context(with_context(rustix::io::Errno::EXIST, "inner"), "outer");
        assert_eq!(error.to_string(), "outer: inner: File exists (os error 17)");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(errno(&error), Some(libc::EEXIST));
    }

    #[test]
    fn advice_follows_the_error_and_says_whether_it_is_about_a_permission() {
        let error = with_advice(&rustix::io::Errno::NOSPC.into(), "none are allowed", true);
        assert_eq!(error.to_string(), "No space left on device (os error 28); none are allowed");
        assert_eq!((error.kind(), errno(&error)), (io::ErrorKind::PermissionDenied, Some(libc::ENOSPC)));
    }

    #[test]
    fn an_error_survives_the_transfer_in_parts() {
        let cases = [
            io::Error::from_raw_os_error(libc::EPERM),
            with_context(with_context(rustix::io::Errno::NOENT, "inner"), "outer"),
            with_advice(&rustix::io::Errno::NOSPC.into(), "advice", true),
            io::Error::other("no errno: here"),
        ];
        for error in cases {
            let (number, is_permission, text) = into_parts(&error);
            let restored = from_parts(number, is_permission, text);
            assert_eq!((restored.to_string(), restored.kind()), (error.to_string(), error.kind()));
            assert_eq!(errno(&restored), errno(&error));
        }
    }
}
