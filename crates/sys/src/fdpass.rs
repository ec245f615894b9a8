//! Bytes and open files over a unix socket, and who is at its other end (unix(7), SCM_RIGHTS and SO_PEERCRED).
//!
//! Received descriptors are close-on-exec from the first moment. Must never lose a descriptor: one that does not fit is an
//! error, and those that came with it are closed.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg, sockopt::PeerCredentials,
};

use crate::error::{Context, Error, Result};

/// The kernel passes at most so many descriptors with one message (`SCM_MAX_FD`).
pub const DESCRIPTORS_MAX: usize = 253;

/// What came with one message.
#[derive(Debug)]
pub struct Received {
    /// How many bytes were written to the buffer; 0 with no descriptors means that the other end closed.
    pub length: usize,
    /// The descriptors, in the order in which they were sent.
    pub descriptors: Vec<OwnedFd>,
}

/// Who is at the other end of a connected unix socket, as it was when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredential {
    /// Its process.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Sends `bytes` (at least one, or the descriptors would be lost) with `descriptors`; all or, on a stream socket whose
/// buffer is full, the first so many bytes. Returns how many bytes were taken; the descriptors went with the first.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize> {
    if bytes.is_empty() || descriptors.len() > DESCRIPTORS_MAX {
        return Err(Error::invalid(
            "send descriptors over",
            "socket",
            "1 byte or more, 253 descriptors or fewer",
        ));
    }
    let numbers: Vec<RawFd> = descriptors.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
    let control = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &control[..] };
    retry(|| {
        sendmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
    })
    .context("send descriptors over", "socket")
}

/// Receives one message into `buffer`, with at most `descriptors_max` descriptors.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], descriptors_max: usize) -> Result<Received> {
    let descriptors_max = descriptors_max.min(DESCRIPTORS_MAX);
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(nix::Error::EINTR) => continue,
            result => break result.context("receive descriptors from", "socket")?,
        }
    };
    let mut descriptors = Vec::new();
    for control in message.cmsgs().context("read control message of", "socket")? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just installed these descriptors in this process for us alone, so each is open and
            // has no other owner.
            descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    if message.flags.contains(MsgFlags::MSG_CTRUNC) || descriptors.len() > descriptors_max {
        return Err(Error::invalid(
            "receive descriptors from",
            "socket",
            "more descriptors came than were expected",
        ));
    }
    Ok(Received { length: message.bytes, descriptors })
}

/// Who is at the other end.
pub fn peer_cred(socket: impl AsFd) -> Result<PeerCredential> {
    let credential =
        getsockopt(&socket, PeerCredentials).context("get credentials of the peer of", "socket")?;
    Ok(PeerCredential { pid: credential.pid(), uid: credential.uid(), gid: credential.gid() })
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => continue,
            result => return result,
        }
    }
}
