//! TUN devices: network devices whose IP packets a process reads and writes
//! (`Documentation/networking/tuntap.rst`).
//!
//! Each read returns one packet and each write sends one. No header precedes the packet (`IFF_NO_PI`).
//!
//! # Kernel facts
//!
//! A device that is down or deleted shows itself like this (measured on Linux 6.18, `drivers/net/tun.c`):
//!
//! | | device brought down | device deleted |
//! |---|---|---|
//! | poll | neither readable nor writable | `POLLERR`, on every call |
//! | read | `EAGAIN` | `EBADFD` |
//! | write | `EIO` | `EBADFD` |
//!
//! A device that went down works again when it comes up. A deleted device never does; [`Tun::is_gone`] recognises its
//! error. The kernel deletes a device that is not persistent when its last descriptor is closed.
//!
//! A device queues 500 packets by default. A burst of more than that is lost before a process can read it, so raise
//! [`TunConfig::queue_length`].

mod config;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, opcode};

use crate::diagnosis::{Operation, explain};
use crate::error_context::{errno, with_context};
use crate::netlink::Netlink;

pub use config::{Origin, TunConfig};

// include/uapi/linux/if_tun.h. The numbers encode the size of an int, although the argument is a `struct ifreq`.
const TUNSETIFF: Opcode = opcode::write::<libc::c_int>(b'T', 202);
const TUNGETIFF: Opcode = opcode::read::<libc::c_uint>(b'T', 210);

/// A queue of a TUN device, non-blocking. It stays attached to its device when the thread or process moves to another
/// network namespace.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
}

impl Tun {
    /// Attaches to the device `name` of the calling thread's network namespace, or creates it. A name has at most 15
    /// bytes. The kernel replaces `%d` in it by the first free number.
    ///
    /// # Errors
    ///
    /// `EPERM` without the permission: creating a device needs `CAP_NET_ADMIN`; attaching to a persistent device needs
    /// that or to be its owner or in its group (`ip tuntap add ping0 mode tun user NAME`). `EBUSY` when all queues of the
    /// device are in use, `EINVAL` when it is not a TUN device, `ENAMETOOLONG`, and `ENOENT` or `EACCES` when
    /// `/dev/net/tun` cannot be opened.
    pub fn open(name: &str) -> io::Result<Self> {
        open_queue(name, 1)
    }

    /// Takes a descriptor that another process opened, and makes it non-blocking.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a TAP device or a device that puts a header before each packet; `EBADFD` or `ENOTTY` when the
    /// descriptor is not attached to such a device.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let tun = described(fd).map_err(|e| with_context(e, "take over a TUN descriptor"))?;
        let flags = rustix::fs::fcntl_getfl(&tun.fd)?;
        rustix::fs::fcntl_setfl(&tun.fd, flags | OFlags::NONBLOCK)?;
        Ok(tun)
    }

    /// The name that the device had when it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets the kernel accept IPv4 packets of the device whose source is an address of the kernel's own host, which it drops
    /// otherwise (`accept_local` in `Documentation/networking/ip-sysctl.rst`). A process that answers for the device from
    /// the device's address needs it. To be called in the network namespace of the device.
    ///
    /// # Errors
    ///
    /// `EACCES` without `CAP_NET_ADMIN`, `EROFS` where `/proc/sys` is read-only, `ENOENT` when the device has another name or
    /// is in another namespace. There is none when the kernel does so already.
    pub fn accept_own_addresses(&self) -> io::Result<()> {
        let path = format!("/proc/sys/net/ipv4/conf/{}/accept_local", self.name);
        if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
            return Ok(());
        }
        std::fs::write(&path, "1").map_err(|e| with_context(e, format!("set {path} to 1")))
    }

    /// Reads one packet into `buffer` and returns its length in bytes. A packet longer than `buffer` is truncated.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when no packet is waiting, `EBADFD` when the device was deleted ([`is_gone`](Self::is_gone)).
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buffer)?)
    }

    /// Passes one packet to the kernel, as if the device had received it.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the first four bits are not those of IPv4 or IPv6, `EIO` while the device is down, `EBADFD` when the
    /// device was deleted ([`is_gone`](Self::is_gone)).
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.fd, packet)?;
        Ok(())
    }

    /// Whether an error of [`receive`](Self::receive) or [`send`](Self::send) says that the device was deleted
    /// (`EBADFD`).
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

/// Opens one of so many queues of a device, which may exist or not.
fn open_queue(name: &str, queues: usize) -> io::Result<Tun> {
    let several = || attach(name, libc::IFF_MULTI_QUEUE);
    let opened = match queues {
        // A device that was made for several queues requires the flag (`tun_set_iff` in drivers/net/tun.c).
        0 | 1 => attach(name, 0).or_else(|error| if error.1 == Errno::INVAL { several() } else { Err(error) }),
        _ => several(),
    };
    opened.map_err(|(step, errno)| {
        let error = with_context(errno, format!("open TUN device {name}"));
        match step {
            Step::OpenFile => explain(error, &Operation::OpenTunFile),
            Step::Attach => explain(error, &operation(name, queues)),
        }
    })
}

/// Where opening a queue failed.
enum Step {
    OpenFile,
    Attach,
}

/// Opens a queue. `flags` are those of `TUNSETIFF` besides `IFF_TUN | IFF_NO_PI`.
fn attach(name: &str, flags: libc::c_int) -> Result<Tun, (Step, Errno)> {
    let mode = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, c"/dev/net/tun", mode, Mode::empty()).map_err(|errno| (Step::OpenFile, errno))?;
    let attached = || {
        let mut request = Request::named(name)?;
        request.flags = (libc::IFF_TUN | libc::IFF_NO_PI | flags) as libc::c_short;
        request.ioctl(&fd, TUNSETIFF)
    };
    attached().and_then(|()| described(fd)).map_err(|errno| (Step::Attach, errno))
}

/// What opening so many queues of a device means: to create it, or to attach to what has the name.
fn operation(name: &str, queues: usize) -> Operation<'_> {
    let kind = Netlink::open().and_then(|mut netlink| {
        let index = netlink.index(name)?;
        netlink.kind(index)
    });
    kind.map_or(Operation::CreateDevice(name), |kind| Operation::AttachDevice(name, kind, queues))
}

/// Opens a new TAP device, which has Ethernet frames, and returns its only descriptor: a virtual machine for tests.
///
/// # Errors
///
/// `EPERM`, or `ENOENT` without `/dev/net/tun`.
#[cfg(feature = "testing")]
pub fn open_tap(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, c"/dev/net/tun", flags, Mode::empty())?;
    let mut request = Request::named(name)?;
    request.flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    request.ioctl(&fd, TUNSETIFF)?;
    Ok(fd)
}

/// Reads the kind and name of the device. `EINVAL` when it is not a TUN device without a packet header.
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
        // The last byte stays 0, because the kernel expects a terminated string.
        let room = request.name.get_mut(..name.len()).filter(|room| room.len() < libc::IFNAMSIZ);
        room.ok_or(Errno::NAMETOOLONG)?.copy_from_slice(name.as_bytes());
        Ok(request)
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(self.name.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
    }

    fn ioctl(&mut self, fd: &OwnedFd, operation: Opcode) -> Result<(), Errno> {
        // SAFETY: both operations used here read and write one `struct ifreq`. Request has its layout and size, and any
        // bits are valid in it.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), operation as libc::Ioctl, std::ptr::from_mut(self)) };
        if result < 0 { Err(last_errno()) } else { Ok(()) }
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
