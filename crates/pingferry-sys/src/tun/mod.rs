//! TUN devices: IP packets of the kernel, read and written by this process (Documentation/networking/tuntap.rst).
//!
//! One read gives one packet, one write takes one; there is no header before it (`IFF_NO_PI`).
//!
//! What a device in trouble shows, as measured on Linux 6.18 (and read in drivers/net/tun.c):
//!
//! | | device brought down | device deleted |
//! |---|---|---|
//! | poll | as if no packet were there; not writable | `POLLERR` at once, again and again |
//! | read | `EAGAIN` | `EBADFD` |
//! | write | `EIO` | `EBADFD` |
//!
//! A device that went down may come up again and then works as before; a deleted one never does, and
//! [`Tun::is_gone`] tells its error from the others. A device that is not persistent is deleted with its last
//! descriptor.

mod config;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, opcode};

use crate::error_context::{errno, with_context};

pub use config::{Origin, TunConfig};

// include/uapi/linux/if_tun.h; the sizes in them are not those of the structure that is passed.
const TUNSETIFF: Opcode = opcode::write::<libc::c_int>(b'T', 202);
const TUNGETIFF: Opcode = opcode::read::<libc::c_uint>(b'T', 210);

/// A queue of a TUN device, non-blocking. It belongs to the device wherever the thread or process goes afterwards.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
}

impl Tun {
    /// Attaches to the device `name` of the calling thread's network namespace, or creates it; with `%d` in it the
    /// kernel picks a number. At most 15 bytes.
    ///
    /// Creating needs `CAP_NET_ADMIN`; attaching to a persistent device only that its owner or group is the
    /// caller's (`ip tuntap add ping0 mode tun user NAME`). `EBUSY` when the device's queues are all taken,
    /// `EINVAL` when it is no TUN device.
    pub fn open(name: &str) -> io::Result<Self> {
        let opened = open_queue(name, 0).or_else(|error| match error {
            // A device made with several queues accepts only those who say they know (tun_set_iff).
            Errno::INVAL => open_queue(name, libc::IFF_MULTI_QUEUE),
            _ => Err(error),
        });
        opened.map_err(|e| with_context(e, format!("open TUN device {name}")))
    }

    /// Takes over a descriptor somebody else opened, and makes it non-blocking.
    ///
    /// `EINVAL` when it is not a TUN device (a TAP device, say) or puts a header before packets; `EBADFD` or
    /// `ENOTTY` when it is not attached to one.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let tun = described(fd).map_err(|e| with_context(e, "take over a TUN descriptor"))?;
        let flags = rustix::fs::fcntl_getfl(&tun.fd)?;
        rustix::fs::fcntl_setfl(&tun.fd, flags | OFlags::NONBLOCK)?;
        Ok(tun)
    }

    /// The device's name when it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads one packet into `buffer` and says how long it is; a packet longer than `buffer` is cut off there.
    /// `WouldBlock` when none is waiting.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buffer)?)
    }

    /// Hands one packet to the kernel. `EINVAL` when it is not IPv4 or IPv6 by its first four bits.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.fd, packet)?;
        Ok(())
    }

    /// Whether an error of [`receive`](Self::receive) or [`send`](Self::send) means that the device was deleted.
    pub fn is_gone(error: &io::Error) -> bool {
        errno(error) == Some(libc::EBADFD)
    }
}

impl From<Tun> for OwnedFd {
    fn from(tun: Tun) -> Self {
        tun.fd
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_queue(name: &str, flags: libc::c_int) -> Result<Tun, Errno> {
    let fd =
        rustix::fs::openat(CWD, c"/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let mut request = Request::named(name)?;
    request.flags = (libc::IFF_TUN | libc::IFF_NO_PI | flags) as libc::c_short;
    request.ioctl(&fd, TUNSETIFF)?;
    described(fd)
}

/// Asks the kernel what the descriptor is, and refuses what is not a plain TUN queue.
fn described(fd: OwnedFd) -> Result<Tun, Errno> {
    let mut request = Request::default();
    request.ioctl(&fd, TUNGETIFF)?;
    let flags = libc::c_int::from(request.flags);
    let wanted = libc::IFF_TUN | libc::IFF_NO_PI;
    let understood = wanted | libc::IFF_TAP | libc::IFF_VNET_HDR;
    if flags & understood != wanted {
        return Err(Errno::INVAL);
    }
    Ok(Tun { name: request.name(), fd })
}

/// `struct ifreq` of include/uapi/linux/if.h with its `ifr_flags`.
#[repr(C)]
#[derive(Default)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    _rest_of_the_union: [u8; size_of::<libc::ifreq>() - libc::IFNAMSIZ - size_of::<libc::c_short>()],
}

impl Request {
    fn named(name: &str) -> Result<Self, Errno> {
        let mut request = Self::default();
        // The last byte stays 0: the kernel wants the end marked.
        let room = request.name.get_mut(..name.len()).filter(|room| room.len() < libc::IFNAMSIZ);
        room.ok_or(Errno::NAMETOOLONG)?.copy_from_slice(name.as_bytes());
        Ok(request)
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(self.name.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
    }

    fn ioctl(&mut self, fd: &OwnedFd, operation: Opcode) -> Result<(), Errno> {
        // SAFETY: both operations used here read and write one `struct ifreq`, whose size Request has.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), operation as libc::Ioctl, std::ptr::from_mut(self)) };
        if result < 0 { Err(last_errno()) } else { Ok(()) }
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
