//! What a group's processes read from disks and wrote to them.
//!
//! Version 2 tells it in `io.stat`, version 1 in the files of `blkio`, by device. Version 1 counts only what processes wait for
//! themselves, and since Linux 6.10 only on disks that somebody has set a limit for, on any group.
//!
//! A byte on a device that lies on others (a loop device, a logical volume) may be counted on those as well. So of the two sums,
//! of devices that lie on others and of those that do not, the larger is told.

use std::fs;
use std::io;
use std::path::Path;

use super::{Layout, Tree, parsed};
use crate::error::{Context, Result};

/// Where the kernel tells of block devices by their numbers.
const DEVICES: &str = "/sys/dev/block";

/// Bytes that passed between a group and disks, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskTraffic {
    /// Read from disks; what the page cache had is not counted.
    pub read_bytes: u64,
    /// Written to disks.
    pub written_bytes: u64,
}

impl Tree {
    /// What passed between a group and disks; `None` where the kernel does not count it for this group.
    pub fn disk_traffic(&self, name: &str) -> Result<Option<DiskTraffic>> {
        let path = self.root.join(parsed(name)?);
        let (file, read): (_, fn(&str) -> Vec<Counted<'_>>) = match &self.layout {
            Layout::V2 { mount, .. } => (mount.join(path).join("io.stat"), v2),
            Layout::V1 { hierarchies, .. } => match hierarchies.get("blkio") {
                Some(mount) => (mount.join(path).join("blkio.throttle.io_service_bytes_recursive"), v1),
                None => return Ok(None),
            },
        };
        match fs::read_to_string(&file) {
            Ok(text) => {
                Ok(Some(sum(&read(&text), |device| lies_on_another(&Path::new(DEVICES).join(device)))))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("read", file.display()),
        }
    }
}

/// A device, and some of what passed it.
type Counted<'a> = (&'a str, DiskTraffic);

/// `8:0 rbytes=90430464 wbytes=299008000 rios=8950 wios=1252 dbytes=0 dios=0`.
fn v2(text: &str) -> Vec<Counted<'_>> {
    let one = |line: &'_ str| {
        let of = |key: &str| {
            let value = line.split_whitespace().find_map(|word| word.strip_prefix(key));
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        DiskTraffic { read_bytes: of("rbytes="), written_bytes: of("wbytes=") }
    };
    text.lines().filter_map(|line| Some((line.split_whitespace().next()?, one(line)))).collect()
}

/// `8:0 Read 90430464`, `8:0 Write 299008000` and others, and at the end `Total 389438464`.
fn v1(text: &str) -> Vec<Counted<'_>> {
    let one = |line| {
        let mut words = str::split_whitespace(line);
        let (device, operation) = (words.next()?, words.next()?);
        let bytes = words.next()?.parse().ok()?;
        match operation {
            "Read" => Some((device, DiskTraffic { read_bytes: bytes, written_bytes: 0 })),
            "Write" => Some((device, DiskTraffic { read_bytes: 0, written_bytes: bytes })),
            _ => None,
        }
    };
    text.lines().filter_map(one).collect()
}

fn sum(counted: &[Counted<'_>], lies_on_another: impl Fn(&str) -> bool) -> DiskTraffic {
    let (mut upper, mut lower) = (DiskTraffic::default(), DiskTraffic::default());
    for (device, traffic) in counted {
        let sum = if lies_on_another(device) { &mut upper } else { &mut lower };
        sum.read_bytes = sum.read_bytes.saturating_add(traffic.read_bytes);
        sum.written_bytes = sum.written_bytes.saturating_add(traffic.written_bytes);
    }
    DiskTraffic {
        read_bytes: upper.read_bytes.max(lower.read_bytes),
        written_bytes: upper.written_bytes.max(lower.written_bytes),
    }
}

/// Whether the device at this place of sysfs is made of others, or of a file that lies on one.
fn lies_on_another(device: &Path) -> bool {
    let has_slaves = fs::read_dir(device.join("slaves")).is_ok_and(|mut slaves| slaves.next().is_some());
    has_slaves || device.join("loop").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(read_bytes: u64, written_bytes: u64) -> DiskTraffic {
        DiskTraffic { read_bytes, written_bytes }
    }

    #[test]
    fn both_versions_are_read_and_nothing_is_counted_twice() {
        let told_by_v2 = "8:0 rbytes=100 wbytes=2000 rios=1 wios=2 dbytes=7 dios=1\n7:3 rbytes=300 wbytes=1500 rios=3 wios=4\n\
                          254:1 \n8:16 rbytes=50 wbytes=0\n";
        let told_by_v1 = "8:0 Read 100\n8:0 Write 2000\n8:0 Sync 2100\n8:0 Total 2100\n7:3 Read 300\n7:3 Write 1500\n\
                          8:16 Read 50\nTotal 3950\n";
        for counted in [v2(told_by_v2), v1(told_by_v1)] {
            assert_eq!(sum(&counted, |_| false), bytes(450, 3500));
            // What the loop device read was in the cache of the disk below it.
            assert_eq!(sum(&counted, |device| device == "7:3"), bytes(300, 2000));
        }
        for text in ["", "Total 0\n", "8:0 Read\n", "8:0 rbytes=x\n"] {
            assert_eq!((sum(&v1(text), |_| false), sum(&v2(text), |_| false)), (bytes(0, 0), bytes(0, 0)));
        }
    }

    #[test]
    fn loop_devices_and_those_of_others_are_known() {
        let directory = tempfile::tempdir().expect("a directory");
        let device = |name: &str, below: &str| {
            let device = directory.path().join(name);
            fs::create_dir_all(device.join(below)).expect("made");
            device
        };
        assert!(lies_on_another(&device("7:0", "loop")));
        assert!(lies_on_another(&device("253:0", "slaves/sda2")));
        assert!(!lies_on_another(&device("8:0", "slaves")));
        assert!(!lies_on_another(&directory.path().join("9:9")));
    }
}
