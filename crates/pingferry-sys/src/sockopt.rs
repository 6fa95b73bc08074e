//! Socket options that `rustix` does not offer.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Makes the kernel report where RFC 4884 extensions begin in a queued error (`include/uapi/linux/in.h`, Linux 5.9).
pub(crate) const IP_RECVERR_RFC4884: c_int = 26;
/// [`IP_RECVERR_RFC4884`] for IPv6 (`include/uapi/linux/in6.h`).
pub(crate) const IPV6_RECVERR_RFC4884: c_int = 31;

/// The longest interface name in bytes: `IFNAMSIZ` less the terminating NUL.
const MAX_INTERFACE_NAME: usize = libc::IFNAMSIZ - 1;

/// Sets an option whose value is an `int`.
pub(crate) fn set_int(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    set_bytes(socket, level, name, &value.to_ne_bytes())
}

/// Sets `SO_BINDTODEVICE` (socket(7)). `EINVAL` for a name that is empty or longer than 15 bytes: the kernel would
/// truncate a long name to one that may exist, and an empty name would undo the binding.
pub(crate) fn bind_to_device(socket: BorrowedFd<'_>, interface: &str) -> io::Result<()> {
    if interface.is_empty() || interface.len() > MAX_INTERFACE_NAME {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    set_bytes(socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, interface.as_bytes())
}

/// Whether the interface of `SO_BINDTODEVICE` was deleted. The binding is to its index, which no other interface gets, so it
/// does not return with the name (`sock_getbindtodevice` in net/core/sock.c).
pub(crate) fn has_lost_device(socket: BorrowedFd<'_>) -> bool {
    let mut name = [0; libc::IFNAMSIZ];
    let result = get_bytes(socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &mut name);
    result.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV))
}

/// How many packets the kernel dropped because the receive buffer was full. `SO_MEMINFO` counts them in 32 bits that
/// wrap (`include/uapi/linux/sock_diag.h`).
pub(crate) fn receive_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = [0; (libc::SK_MEMINFO_DROPS as usize + 1) * size_of::<u32>()];
    get_bytes(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut info)?;
    let [.., d0, d1, d2, d3] = info;
    Ok(u32::from_ne_bytes([d0, d1, d2, d3]))
}

fn get_bytes(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &mut [u8]) -> io::Result<()> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: `value` and `length` live through the call, and the kernel writes at most `length` bytes to `value`.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_bytes(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: `value` lives through the call and has `length` bytes, which the kernel only reads.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
