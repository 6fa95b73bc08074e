//! For processors that the compiler of filters does not know.

use std::io;

use super::Sandbox;

pub(super) fn apply(_sandbox: &Sandbox) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
