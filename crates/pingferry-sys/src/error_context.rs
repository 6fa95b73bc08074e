//! Kernel errors that say what was asked.
//!
//! `io::Error` holds either an errno or a text. [`with_context`] keeps both: the text is what a person reads
//! ("add address 10.0.0.1/24 to ping0: File exists (os error 17)"), and [`errno`] still finds the number.

use std::error::Error;
use std::fmt::{self, Display};
use std::io;

#[derive(Debug)]
struct WithContext {
    what: String,
    source: io::Error,
}

impl Display for WithContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl Error for WithContext {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Puts what was asked for in front of `error`; its kind and errno are kept.
pub(crate) fn with_context(error: impl Into<io::Error>, what: impl Into<String>) -> io::Error {
    let source = error.into();
    io::Error::new(source.kind(), WithContext { what: what.into(), source })
}

/// The errno of an error of this crate, also where a text was put in front of it.
pub fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let context = error.get_ref()?.downcast_ref::<WithContext>()?;
        errno(&context.source)
    })
}

/// Takes an error apart to carry it to another process: its errno, and its text without what the errno says.
pub(crate) fn into_parts(error: &io::Error) -> (Option<i32>, String) {
    let errno = errno(error);
    let text = error.to_string();
    let reason = errno.map(|errno| io::Error::from_raw_os_error(errno).to_string()).unwrap_or_default();
    let what = text.strip_suffix(&reason).unwrap_or(&text);
    (errno, what.strip_suffix(": ").unwrap_or(what).into())
}

/// The reverse of [`into_parts`].
pub(crate) fn from_parts(errno: Option<i32>, what: String) -> io::Error {
    match errno.map(io::Error::from_raw_os_error) {
        Some(reason) if what.is_empty() => reason,
        Some(reason) => with_context(reason, what),
        None => io::Error::other(what),
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
    fn taken_apart_and_put_together_it_is_the_same() {
        let cases = [
            io::Error::from_raw_os_error(libc::EPERM),
            with_context(with_context(rustix::io::Errno::PERM, "inner"), "outer"),
            io::Error::other("no errno: here"),
        ];
        for error in cases {
            let (number, what) = into_parts(&error);
            let again = from_parts(number, what);
            assert_eq!(again.to_string(), error.to_string());
            assert_eq!(errno(&again), errno(&error));
        }
    }
}
