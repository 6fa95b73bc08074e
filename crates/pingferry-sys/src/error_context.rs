//! Kernel errors that name the operation that failed.
//!
//! An `io::Error` holds either an errno or a text. An error of [`with_context`] holds both: a text for people, such as
//! "add address 10.0.0.1/24 to ping0: File exists (os error 17)", and the number that [`errno`] returns.

use std::error::Error;
use std::fmt::{self, Display};
use std::io;

/// The error that [`with_context`] wraps, and the operation that failed.
#[derive(Debug)]
struct WithContext {
    operation: String,
    source: io::Error,
}

impl Display for WithContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.source)
    }
}

impl Error for WithContext {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Prefixes `error` with the operation that failed. Kind and errno stay the same.
pub(crate) fn with_context(error: impl Into<io::Error>, operation: impl Into<String>) -> io::Error {
    let source = error.into();
    io::Error::new(source.kind(), WithContext { operation: operation.into(), source })
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
    error.raw_os_error().or_else(|| {
        let context = error.get_ref()?.downcast_ref::<WithContext>()?;
        errno(&context.source)
    })
}

/// Splits an error for its transfer to another process: the errno, and the text without the text of the errno.
pub(crate) fn into_parts(error: &io::Error) -> (Option<i32>, String) {
    let errno = errno(error);
    let text = error.to_string();
    let reason = errno.map(|errno| io::Error::from_raw_os_error(errno).to_string()).unwrap_or_default();
    let operation = text.strip_suffix(&reason).unwrap_or(&text);
    (errno, operation.strip_suffix(": ").unwrap_or(operation).into())
}

/// The inverse of [`into_parts`].
pub(crate) fn from_parts(errno: Option<i32>, text: String) -> io::Error {
    match errno.map(io::Error::from_raw_os_error) {
        Some(reason) if text.is_empty() => reason,
        Some(reason) => with_context(reason, text),
        None => io::Error::other(text),
    }
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
    fn an_error_survives_the_transfer_in_parts() {
        let cases = [
            io::Error::from_raw_os_error(libc::EPERM),
            with_context(with_context(rustix::io::Errno::PERM, "inner"), "outer"),
            io::Error::other("no errno: here"),
        ];
        for error in cases {
            let (number, text) = into_parts(&error);
            let restored = from_parts(number, text);
            assert_eq!(restored.to_string(), error.to_string());
            assert_eq!(errno(&restored), errno(&error));
        }
    }
}
