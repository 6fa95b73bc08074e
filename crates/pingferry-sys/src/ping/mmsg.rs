//! `sendmmsg` and `recvmmsg`: many messages per system call. This is the only `unsafe` code of the packet path.
//!
//! The structs have the layout of the kernel's `struct user_msghdr` and `struct mmsghdr` (`include/linux/socket.h`). The
//! system calls are made directly, because musl's `sendmmsg` calls `sendmsg` once for each message.

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::address::SocketAddress;
use super::cmsg;

/// The largest number of messages of one call.
pub(super) const CAPACITY: usize = 64;

/// How often a call is made before its error counts as its own. Another ICMP error can arrive between two calls and
/// become the pending error, but hardly three times in a row.
const ATTEMPTS: usize = 4;

/// Repeats `call` when its error may be the pending error of the socket (see [`super`]), which the failed call has cleared.
pub(crate) fn retry_pending_errors(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    for _ in 1..ATTEMPTS {
        match call() {
            Err(error) if may_be_pending(&error) => {}
            result => return result,
        }
    }
    call()
}

/// Whether an ICMP error can make the kernel return this errno (`icmp_err_convert` in net/ipv4/icmp.c, `tab_unreach` and
/// `icmpv6_err_convert` in net/ipv6/icmp.c). Other errors are those of the call itself. It must not be repeated after
/// `EPERM`: a firewall that rejects a message reports each attempt by an ICMP error.
fn may_be_pending(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EACCES
                | libc::ECONNREFUSED
                | libc::EMSGSIZE
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EPROTO
        )
    )
}

#[derive(Clone, Copy)]
#[repr(C)]
struct UserMsgHdr {
    name: *mut c_void,
    name_len: c_int,
    iov: *mut c_void,
    iov_len: usize,
    control: *mut c_void,
    control_len: usize,
    flags: c_uint,
}

/// A `struct mmsghdr`. `Borrow` is the type of the borrow that keeps its pointers valid.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Header<Borrow> {
    message: UserMsgHdr,
    len: c_uint,
    borrow: PhantomData<Borrow>,
}

const _: () = assert!(size_of::<Header<()>>() == size_of::<libc::mmsghdr>());

/// The header of a message to send.
pub(super) type SendHeader<'a> = Header<&'a [u8]>;
/// The header of a buffer for a message to receive.
pub(super) type ReceiveHeader<'a> = Header<&'a mut [u8]>;

impl<Borrow> Header<Borrow> {
    /// A header without address, data and control messages.
    pub(super) const EMPTY: Self = Self {
        message: UserMsgHdr {
            name: ptr::null_mut(),
            name_len: 0,
            iov: ptr::null_mut(),
            iov_len: 0,
            control: ptr::null_mut(),
            control_len: 0,
            flags: 0,
        },
        len: 0,
        borrow: PhantomData,
    };
}

impl<'a> SendHeader<'a> {
    pub(super) fn new(address: &'a SocketAddress, body: &'a IoSlice<'a>, control: &'a [cmsg::IntMessage]) -> Self {
        let mut header = Self::EMPTY;
        header.message.name = ptr::from_ref(address.bytes()).cast_mut().cast();
        header.message.name_len = address.bytes().len() as c_int;
        header.message.iov = ptr::from_ref(body).cast_mut().cast();
        header.message.iov_len = 1;
        header.message.control = control.as_ptr().cast_mut().cast();
        header.message.control_len = size_of_val(control);
        header
    }
}

impl<'a> ReceiveHeader<'a> {
    pub(super) fn new(
        address: &'a mut SocketAddress,
        body: &'a mut IoSliceMut<'_>,
        control: &'a mut [u8; cmsg::BUFFER_SIZE],
    ) -> Self {
        let mut header = Self::EMPTY;
        let name = address.bytes_mut();
        header.message.name_len = name.len() as c_int;
        header.message.name = ptr::from_mut(name).cast();
        header.message.iov = ptr::from_mut(body).cast();
        header.message.iov_len = 1;
        header.message.control_len = control.len();
        header.message.control = ptr::from_mut(control).cast();
        header
    }

    /// What the kernel wrote into the buffers of this header, after a call that received its message.
    pub(super) fn filled(&self) -> Filled {
        Filled {
            address: usize::try_from(self.message.name_len).unwrap_or(0),
            control: self.message.control_len,
            body: self.len as usize,
            truncated: self.message.flags & libc::MSG_TRUNC as c_uint != 0,
        }
    }
}

/// How many bytes of each buffer of a message the kernel filled, and whether the message was longer.
#[derive(Clone, Copy, Default)]
pub(super) struct Filled {
    pub(super) address: usize,
    pub(super) control: usize,
    pub(super) body: usize,
    pub(super) truncated: bool,
}

/// Sends messages in order and returns how many were sent. An error concerns the first message.
pub(super) fn send(socket: BorrowedFd<'_>, headers: &mut [SendHeader<'_>]) -> io::Result<usize> {
    // SAFETY: the headers have the kernel's layout, and the borrows in their type keep valid what they point to. The
    // kernel reads from there, and writes only the `len` of each header.
    let sent = unsafe { libc::syscall(libc::SYS_sendmmsg, socket.as_raw_fd(), headers.as_mut_ptr(), headers.len(), 0) };
    count(sent)
}

/// Receives waiting messages without blocking, and returns how many were received.
pub(super) fn receive(socket: BorrowedFd<'_>, headers: &mut [ReceiveHeader<'_>], flags: c_int) -> io::Result<usize> {
    let no_timeout = ptr::null_mut::<c_void>();
    let flags = flags | libc::MSG_DONTWAIT;
    let len = headers.len();
    // SAFETY: the headers have the kernel's layout. The mutable borrows in their type keep valid the buffers that they
    // point to, and each buffer has the length in the header. A null pointer means no timeout.
    let received =
        unsafe { libc::syscall(libc::SYS_recvmmsg, socket.as_raw_fd(), headers.as_mut_ptr(), len, flags, no_timeout) };
    count(received)
}

/// The result of a system call: a count, or -1 and an errno.
fn count(result: c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
