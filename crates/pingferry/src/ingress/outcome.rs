//! What a callback says about a packet.

use std::io;

/// What a callback returns: `()` if it takes every packet, `bool` if it says whether it took it, or a `Result`. What it did not
/// take is counted as not delivered.
///
/// ```no_run
/// use std::sync::mpsc::sync_channel;
///
/// use pingferry::{Config, PathConfig, Proxy};
///
/// let proxy = Proxy::open(Config::default())?;
/// let (back, replies) = sync_channel::<Vec<u8>>(100);
/// let path = proxy.attach(PathConfig::default(), move |packet: &[u8]| back.try_send(packet.to_vec()))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Outcome: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self) -> io::Result<()>;
}

impl Outcome for () {
    fn into_result(self) -> io::Result<()> {
        Ok(())
    }
}

impl Outcome for bool {
    fn into_result(self) -> io::Result<()> {
        if self { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

impl<T, E> Outcome for Result<T, E> {
    fn into_result(self) -> io::Result<()> {
        self.is_ok().into_result()
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for () {}
    impl Sealed for bool {}
    impl<T, E> Sealed for Result<T, E> {}
}
