//! Many messages per system call, and the only `unsafe` of the packet path.
//!
//! The structs are the kernel's (`struct user_msghdr` and `struct mmsghdr`, `include/linux/socket.h`), and the calls
//! are made past the C library, since musl's `sendmmsg` makes one `sendmsg` of each message.

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::address::SocketAddress;
use super::cmsg;

/// How many messages one call sends or receives at most.
pub(super) const CAPACITY: usize = 64;

/// How often a call is made until its error counts as its own. Between two calls another ICMP error can arrive and
/// be pending in its turn, but hardly three times running.
const ATTEMPTS: usize = 4;

/// Makes `call` again when it fails, since its error may be the socket's pending error (see [`super`]), which the
/// failing call has taken away. `EAGAIN` is never a pending error.
pub(super) fn past_pending_errors(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    for _ in 1..ATTEMPTS {
        match call() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
    call()
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

/// A `struct mmsghdr` that borrows what it points to, as `Borrow` says.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Header<Borrow> {
    message: UserMsgHdr,
    len: c_uint,
    borrow: PhantomData<Borrow>,
}

const _: () = assert!(size_of::<Header<()>>() == size_of::<libc::mmsghdr>());

/// Points to a message to send.
pub(super) type SendHeader<'a> = Header<&'a [u8]>;
/// Points to the room for a message to receive.
pub(super) type ReceiveHeader<'a> = Header<&'a mut [u8]>;

impl<Borrow> Header<Borrow> {
    /// A message without anything.
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
        control: &'a mut [u8; cmsg::ROOM],
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

    /// What the kernel wrote, after a call that returned this message.
    pub(super) fn filled(&self) -> Filled {
        Filled {
            address: usize::try_from(self.message.name_len).unwrap_or(0),
            control: self.message.control_len,
            body: self.len as usize,
            truncated: self.message.flags & libc::MSG_TRUNC as c_uint != 0,
        }
    }
}

/// How much of the room for a message is filled.
#[derive(Clone, Copy, Default)]
pub(super) struct Filled {
    pub(super) address: usize,
    pub(super) control: usize,
    pub(super) body: usize,
    pub(super) truncated: bool,
}

/// Sends messages in order. Returns how many left; an error is that of the first message.
pub(super) fn send(socket: BorrowedFd<'_>, headers: &mut [SendHeader<'_>]) -> io::Result<usize> {
    // SAFETY: the headers have the kernel's layout and borrow everything they point to; the kernel only reads from
    // that, and writes the `len` of each header.
    let sent = unsafe { libc::syscall(libc::SYS_sendmmsg, socket.as_raw_fd(), headers.as_mut_ptr(), headers.len(), 0) };
    count(sent)
}

/// Receives what waits, without blocking, and returns how many messages that are.
pub(super) fn receive(socket: BorrowedFd<'_>, headers: &mut [ReceiveHeader<'_>], flags: c_int) -> io::Result<usize> {
    let no_timeout = ptr::null_mut::<c_void>();
    let flags = flags | libc::MSG_DONTWAIT;
    let len = headers.len();
    // SAFETY: the headers have the kernel's layout and borrow mutably everything they point to, with its length.
    let received =
        unsafe { libc::syscall(libc::SYS_recvmmsg, socket.as_raw_fd(), headers.as_mut_ptr(), len, flags, no_timeout) };
    count(received)
}

fn count(result: c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
