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

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ipnet::IpNet;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, opcode};

use crate::error_context::{errno, with_context};
use crate::netlink::Netlink;

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

/// A TUN device as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunConfig {
    /// As for [`Tun::open`].
    pub name: String,
    /// Its addresses, each with the prefix of the network behind it.
    pub addresses: Vec<IpNet>,
    /// More networks behind it.
    pub routes: Vec<IpNet>,
    /// The largest packet, in bytes; otherwise left as it is (1500 on a new device).
    pub mtu: Option<u32>,
    /// How many packets may wait to be read from a device that is created; otherwise 500, too few for bursts.
    pub queue_length: Option<u32>,
}

/// Where an opened device comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was not there, and goes with its last descriptor.
    Created,
    /// It was there.
    Attached,
}

impl TunConfig {
    /// Opens the device, sets what is given and brings it up, in the calling thread's network namespace. Returns it with
    /// its MTU in bytes and where it comes from.
    ///
    /// An address or route that an attached device already has is fine. An attached device that is up needs no
    /// rights when nothing else is to be set.
    pub fn open(&self) -> io::Result<(Tun, u32, Origin)> {
        self.open_with(Tun::open)
    }

    /// The same with so many queues, at least one; the kernel spreads flows over them (`tun_select_queue` in
    /// drivers/net/tun.c). `EINVAL` when the device exists and was made for one queue only.
    pub fn open_queues(&self, count: usize) -> io::Result<(Vec<Tun>, u32, Origin)> {
        if count <= 1 {
            return self.open().map(|(tun, mtu, origin)| (vec![tun], mtu, origin));
        }
        let queue = |name: &str| {
            open_queue(name, libc::IFF_MULTI_QUEUE)
                .map_err(|e| with_context(e, format!("open a queue of TUN device {name}")))
        };
        let (first, mtu, origin) = self.open_with(queue)?;
        let others: io::Result<Vec<Tun>> = (1..count).map(|_| queue(first.name())).collect();
        Ok((std::iter::once(first).chain(others?).collect(), mtu, origin))
    }

    fn open_with(&self, open: impl FnOnce(&str) -> io::Result<Tun>) -> io::Result<(Tun, u32, Origin)> {
        let mut netlink = Netlink::open()?;
        let origin = if netlink.index(&self.name).is_ok() { Origin::Attached } else { Origin::Created };
        let tun = open(&self.name)?;
        let index = netlink.index(tun.name())?;
        if origin == Origin::Created {
            self.queue_length.map_or(Ok(()), |packets| netlink.set_queue_length(index, packets))?;
        }
        self.configure(&mut netlink, index)?;
        Ok((tun, netlink.mtu(index)?, origin))
    }

    fn configure(&self, netlink: &mut Netlink, index: u32) -> io::Result<()> {
        self.mtu.map_or(Ok(()), |mtu| netlink.set_mtu(index, mtu))?;
        if !netlink.is_up(index)? {
            netlink.set_up(index)?;
        }
        for address in &self.addresses {
            or_exists(netlink.add_address(index, *address))?;
        }
        for route in &self.routes {
            or_exists(netlink.add_route(*route, None, index))?;
        }
        self.addresses.iter().try_for_each(|address| netlink.wait_local(address.addr()))
    }
}

fn or_exists(added: io::Result<()>) -> io::Result<()> {
    added.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
}
