//! Persistent tap devices: the host's end of a virtual machine's network card.
//!
//! A tap belongs to the namespace it was made in and stays when nobody holds it; the machine monitor gets an open
//! descriptor and needs no privilege. Source: the kernel's Documentation/networking/tuntap.rst.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::error::{Context, Error, Result, check};
use crate::netlink::{Mac, Netlink};
use crate::netns::NetNs;

// linux/if_tun.h: _IOW('T', number, int).
const TUNSETIFF: libc::Ioctl = 0x4004_54ca_u32 as libc::Ioctl;
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb_u32 as libc::Ioctl;
const TUNSETOWNER: libc::Ioctl = 0x4004_54cc_u32 as libc::Ioctl;

/// Makes the persistent tap `name` in `namespace`, owned by `owner_uid` (who may attach to it without privilege), with the
/// host side's Ethernet address `mac`, and attaches to it: no packet information header, with virtio-net header. A tap
/// that is there is brought to the same state. Fails with `ResourceBusy` while somebody else is attached: see [`ensure`].
pub fn create(namespace: &NetNs, name: &str, owner_uid: u32, mac: Mac) -> Result<OwnedFd> {
    let netlink = Netlink::open(namespace)?;
    let file = attach(namespace, name)?;
    let owner =
        c_int::try_from(owner_uid).map_err(|_| Error::invalid("own tap", name, "the uid is too large"))?;
    set(&file, "set owner of tap", name, TUNSETOWNER, owner)?;
    set(&file, "make persistent tap", name, TUNSETPERSIST, 1)?;
    netlink.set_mac(name, mac)?;
    Ok(file.into())
}

/// Like [`create`], but leaves the tap unattached and is content with one that a running machine is attached to.
pub fn ensure(namespace: &NetNs, name: &str, owner_uid: u32, mac: Mac) -> Result<()> {
    match create(namespace, name, owner_uid, mac) {
        Err(error) if error.errno() == Some(libc::EBUSY) => Netlink::open(namespace)?.set_mac(name, mac),
        result => result.map(drop),
    }
}

/// Attaches to the tap `name` of `namespace`; fails with `NotFound` if there is none. One process at a time.
pub fn open(namespace: &NetNs, name: &str) -> Result<OwnedFd> {
    // Attaching to a name that is free would make a tap that vanishes with the descriptor.
    match Netlink::open(namespace)?.link(name)? {
        Some(link) if link.kind.as_deref() == Some("tun") => attach(namespace, name).map(OwnedFd::from),
        Some(_) => Err(Error::invalid("attach to tap", name, "the device is of another kind")),
        None => Err(Error::new("attach to tap", name, std::io::Error::from(std::io::ErrorKind::NotFound))),
    }
}

/// Opens the device inside the namespace (the descriptor belongs to the namespace of the thread that opens it).
fn attach(namespace: &NetNs, name: &str) -> Result<File> {
    let file = namespace
        .run(|| OpenOptions::new().read(true).write(true).open("/dev/net/tun"))
        .context("attach to tap", name)?
        .context("open /dev/net/tun for tap", name)?;
    // SAFETY: ifreq is plain data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(Error::invalid("attach to tap", name, "1 to 15 characters"));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, whose name ends in NUL.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &mut request) };
    check("attach to tap", name, result.into())?;
    Ok(file)
}

fn set(file: &File, operation: &'static str, name: &str, request: libc::Ioctl, value: c_int) -> Result<()> {
    // SAFETY: these requests take a number by value and touch no memory of ours.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, value) };
    check(operation, name, result.into()).map(drop)
}
