//! Taps: persistent, owned, attached once, and frames that come out of them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use sys::netlink::Netlink;
use sys::netns::NetNs;
use sys::tap;

const MAC: [u8; 6] = [2, 0x68, 0x6f, 0x6c, 0x6d, 1];
/// The virtio-net header before each frame, of the size that a tap starts with.
const VNET_HEADER_SIZE_BYTES: usize = 10;

#[test]
fn a_tap_is_made_twice_reattached_and_deleted() {
    let namespace = NetNs::anonymous().expect("we are root");
    let netlink = Netlink::open(&namespace).expect("a socket");
    assert!(tap::open(&namespace, "tap0").is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound));
    drop(tap::create(&namespace, "tap0", 4711, MAC).expect("made"));
    let held = tap::create(&namespace, "tap0", 4712, MAC).expect("made again");
    assert_eq!(tap::create(&namespace, "tap0", 4712, MAC).expect_err("held").errno(), Some(libc::EBUSY));
    tap::ensure(&namespace, "tap0", 4712, MAC).expect("it is there");
    drop(held);
    let link = netlink.link("tap0").expect("asked").expect("it persists");
    assert_eq!((link.mac, link.kind.as_deref(), link.carrier), (Some(MAC), Some("tun"), false));
    drop(tap::open(&namespace, "tap0").expect("attached"));
    netlink.add_bridge("bridge0").expect("a bridge");
    assert!(tap::open(&namespace, "bridge0").is_err(), "a bridge is no tap");
    netlink.delete_link("tap0").expect("deleted");
}

#[test]
fn frames_pass_between_the_tap_and_the_namespace() {
    let namespace = NetNs::anonymous().expect("we are root");
    let netlink = Netlink::open(&namespace).expect("a socket");
    let mut guest = File::from(tap::create(&namespace, "tap0", 4711, MAC).expect("made"));
    sys::sysctl::write(&namespace, "net/ipv6/conf/tap0/disable_ipv6", "1").expect("quiet");
    netlink.set_up("tap0").expect("up");
    netlink.add_address("tap0", "10.7.0.1/24".parse().expect("a prefix")).expect("added");
    netlink
        .replace_neighbour("tap0", "10.7.0.2".parse().expect("an address"), [2, 0, 0, 0, 0, 9])
        .expect("known");
    let socket = namespace.run(|| UdpSocket::bind("10.7.0.1:9")).expect("ran").expect("bound");
    socket.send_to(b"to the guest", "10.7.0.2:7").expect("sent");
    let mut frame = [0; 2048];
    let length = guest.read(&mut frame).expect("a frame");
    assert!(frame[..length].ends_with(b"to the guest"));
    assert_eq!(frame[VNET_HEADER_SIZE_BYTES..][..12], [2, 0, 0, 0, 0, 9, 2, 0x68, 0x6f, 0x6c, 0x6d, 1]);
    // An ARP question from the guest is answered by the namespace.
    let question = [
        &[0; VNET_HEADER_SIZE_BYTES][..],
        &[255; 6],
        &[
            2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 7, 0, 2, 0, 0, 0, 0, 0, 0,
            10, 7, 0, 1,
        ],
    ]
    .concat();
    guest.write_all(&question).expect("sent");
    let length = guest.read(&mut frame).expect("an answer");
    assert_eq!(frame[..length][VNET_HEADER_SIZE_BYTES + 20..][..8], [0, 2, 2, 0x68, 0x6f, 0x6c, 0x6d, 1]);
}

/// Attaches to `tap0` as this user without any privilege, in a thread that is thrown away.
fn attach_as(namespace: &NetNs, uid: u32) -> std::io::Result<()> {
    let attach = || {
        // Opened before, because not every machine lets everybody open it; who may attach is asked later.
        let file = File::options().read(true).write(true).open("/dev/net/tun")?;
        // SAFETY: the raw call changes the ids of this one thread, which ends right after.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }, 0);
        // SAFETY: ifreq is plain data for which all zeros is a valid value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (place, byte) in request.ifr_name.iter_mut().zip(b"tap0") {
            *place = *byte as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq.
        match unsafe { libc::ioctl(file.as_raw_fd(), 0x4004_54ca, &mut request) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    namespace.run(attach).expect("ran")
}

#[test]
fn the_owner_attaches_without_privilege_and_a_stranger_does_not() {
    let namespace = NetNs::anonymous().expect("we are root");
    tap::ensure(&namespace, "tap0", 54321, MAC).expect("made");
    attach_as(&namespace, 54321).expect("the owner may");
    assert_eq!(attach_as(&namespace, 54322).expect_err("a stranger").raw_os_error(), Some(libc::EPERM));
}
