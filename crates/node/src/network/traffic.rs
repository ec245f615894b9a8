//! What has passed a port: the counters of its device, as its namespace tells them (proc_pid_net(5), `dev`).

use model::port::Port;
use std::{fs, io, path::Path};
use sys::netns::NetNs;

/// Bytes and packets since the device was made, as the guest behind it counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What the guest was sent.
    pub received: Direction,
    /// What the guest sent.
    pub sent: Direction,
}

/// Counters of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Direction {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were broken.
    pub errors: u64,
    /// Packets that nobody took.
    pub dropped: u64,
}

/// Counters of a port whose device is in the namespace behind `handle`; `None` without such a device. Blocking.
///
/// # Errors
/// The kernel's.
pub fn of(handle: &Path, port: &Port) -> io::Result<Option<Traffic>> {
    let text = NetNs::open(handle)?.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    Ok(find(&text, &port.device_name()))
}

/// `  eth0: received: bytes packets errs drop fifo frame compressed multicast, sent: bytes packets errs drop …`. What the
/// device received the guest has sent.
fn find(text: &str, device: &str) -> Option<Traffic> {
    let counters = text.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'))?;
    let counters: Vec<u64> = counters.split_whitespace().map_while(|number| number.parse().ok()).collect();
    let direction = |at: usize| {
        let [bytes, packets, errors, dropped] = *counters.get(at..)?.first_chunk()?;
        Some(Direction { bytes, packets, errors, dropped })
    };
    Some(Traffic { sent: direction(0)?, received: direction(8)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_received_what_its_device_sent() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n   \
            p1: 1500      10    1    2    0     0          0         0     9000      20    3    4    0     0       0          0\n";
        let traffic = find(text, "p1").expect("its line");
        assert_eq!(traffic.sent, Direction { bytes: 1500, packets: 10, errors: 1, dropped: 2 });
        assert_eq!(traffic.received, Direction { bytes: 9000, packets: 20, errors: 3, dropped: 4 });
        assert_eq!(find(text, "p"), None);
        assert_eq!(find("p1: 1 2", "p1"), None);
    }
}
