//! Disks and network cards as QEMU's objects: the same JSON for the command line of a cold start and for a hot plug.
//!
//! QEMU opens no file of a disk itself: each comes as an open descriptor in a numbered set (`/dev/fdset/N`), so QEMU's user
//! needs no right to any path. The graph of a disk is spelled out to its last backing file, because what a qcow2 header
//! says about files was written by whoever made the image. Pure.
//!
//! ```text
//!  pcie.0 ── slot 2: ports n0…n7 for network cards     n0 is the first card, on bus 1, for the life of the VM
//!         ├─ slot 3 and 4: ports d0…d15 for disks      d0 is the root disk
//!         └─ slot 5: port c0 for the config drive      last, so that disks are vda, vdb, … without it
//! ```

use model::{
    id::{PortId, VolumeId},
    instance::{PORTS_MAX, VOLUMES_MAX},
    plan::{DiskFormat, DiskPlan, NicPlan},
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Ports for network cards.
pub const NIC_PORTS: usize = PORTS_MAX;
/// Ports for disks.
pub const DISK_PORTS: usize = VOLUMES_MAX;
/// Serial number of the config drive.
pub const CONFIG_DRIVE_SERIAL: &str = "config-drive";
/// Functions of one PCI slot.
const FUNCTIONS: usize = 8;
/// First slot of the root ports; the ports' order on the bus gives guests their device names.
const FIRST_SLOT: usize = 2;

/// A file that QEMU gets as an open descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFile {
    /// The file.
    pub path: PathBuf,
    /// Opened for writing too.
    pub writable: bool,
}

/// Bus of the n-th network card.
pub fn nic_bus(index: usize) -> String {
    format!("n{index}")
}

/// Bus of the n-th disk.
pub fn disk_bus(index: usize) -> String {
    format!("d{index}")
}

/// Id of a disk's device.
pub fn disk_id(volume: VolumeId) -> String {
    format!("disk-{}", volume.hex())
}

/// Id of a card's device.
pub fn nic_id(port: PortId) -> String {
    format!("nic-{}", port.hex())
}

/// Id of a card's other half, which holds the tap.
pub fn netdev_id(port: PortId) -> String {
    format!("net-{}", port.hex())
}

/// The volume behind a device's id.
pub fn volume_of(id: &str) -> Option<VolumeId> {
    id.strip_prefix("disk-")?.parse().ok()
}

/// The port behind a device's id.
pub fn port_of(id: &str) -> Option<PortId> {
    id.strip_prefix("nic-")?.parse().ok()
}

/// Longest run of digits behind a node's name.
const LEVEL_DIGITS: usize = 2;

/// How all nodes of a disk's graph begin. QEMU allows 31 characters, too few for a whole id and a suffix.
fn node_prefix(volume: VolumeId) -> String {
    format!("d{}-", &volume.hex()[6..])
}

/// Name of the node of a disk's graph on this level, counted from the lowest: so that names stay as they are when a layer
/// comes on top.
pub fn format_node(volume: VolumeId, level: usize) -> String {
    format!("{}b{level}", node_prefix(volume))
}

/// Name of the node that holds the file of that one.
pub fn file_node_name(volume: VolumeId, level: usize) -> String {
    format!("{}f{level}", node_prefix(volume))
}

/// The level of a format node or its file, if it is one of this volume.
pub fn level_of(volume: VolumeId, node: &str) -> Option<usize> {
    let level = node.strip_prefix(&node_prefix(volume))?.strip_prefix(['b', 'f'])?;
    (level.len() <= LEVEL_DIGITS).then(|| level.parse().ok())?
}

/// Name of the top node of a disk's graph.
pub fn top_node(disk: &DiskPlan) -> String {
    format_node(disk.volume, disk.backing.len())
}

/// All root ports, in the order of their slots.
pub fn root_ports() -> Vec<Value> {
    let names = (0..NIC_PORTS).map(nic_bus).chain((0..DISK_PORTS).map(disk_bus)).chain(["c0".to_owned()]);
    let port = |(index, name): (usize, String)| {
        let (slot, function) = (FIRST_SLOT + index / FUNCTIONS, index % FUNCTIONS);
        json!({
            "driver": "pcie-root-port",
            "id": name,
            "bus": "pcie.0",
            "chassis": index + 1,
            "addr": format!("{slot:#x}.{function:#x}"),
            "multifunction": function == 0,
        })
    };
    names.enumerate().map(port).collect()
}

/// The files of a disk, top first: the order in which [`disk_nodes`] wants their sets.
pub fn disk_files(disk: &DiskPlan) -> Vec<DiskFile> {
    let top = DiskFile { path: disk.path.clone(), writable: !disk.read_only };
    let backing = disk.backing.iter().map(|file| DiskFile { path: file.path.clone(), writable: false });
    std::iter::once(top).chain(backing).collect()
}

/// The graph of a disk as `blockdev-add` takes it, lowest node first. `sets` are the descriptor sets of
/// [`disk_files`].
pub fn disk_nodes(disk: &DiskPlan, sets: &[u64]) -> Vec<Value> {
    let formats = std::iter::once(disk.format).chain(disk.backing.iter().map(|file| file.format));
    let layers: Vec<(DiskFormat, u64)> = formats.zip(sets.iter().copied()).collect();
    let top = layers.len().saturating_sub(1);
    let mut nodes = Vec::new();
    for (level, (format, set)) in layers.iter().rev().enumerate() {
        let read_only = level < top || disk.read_only;
        nodes.push(file_node(&file_node_name(disk.volume, level), *set, read_only));
        let mut node = json!({
            "driver": format.as_str(),
            "node-name": format_node(disk.volume, level),
            "file": file_node_name(disk.volume, level),
            "read-only": read_only,
            "discard": "unmap",
        });
        if *format == DiskFormat::Qcow2 {
            // Null says that there is none, whatever the header says.
            node["backing"] = json!(level.checked_sub(1).map(|below| format_node(disk.volume, below)));
        }
        nodes.push(node);
    }
    nodes
}

/// A layer that is to come above another, not yet knowing of it: `blockdev-snapshot` puts the two together.
pub fn layer_nodes(volume: VolumeId, level: usize, set: u64, read_only: bool) -> [Value; 2] {
    let file = file_node_name(volume, level);
    let layer = json!({
        "driver": "qcow2",
        "node-name": format_node(volume, level),
        "file": file,
        "read-only": read_only,
        "discard": "unmap",
        "backing": Value::Null,
    });
    [file_node(&file, set, read_only), layer]
}

/// A protocol node on a descriptor set.
pub fn file_node(name: &str, set: u64, read_only: bool) -> Value {
    json!({
        "driver": "file",
        "node-name": name,
        "filename": format!("/dev/fdset/{set}"),
        "read-only": read_only,
        "discard": "unmap",
    })
}

/// The disk's device on `bus`.
pub fn disk_device(disk: &DiskPlan, bus: &str) -> Value {
    let mut device = json!({
        "driver": "virtio-blk-pci",
        "id": disk_id(disk.volume),
        "bus": bus,
        "drive": top_node(disk),
        "serial": disk.serial,
        "write-cache": "on",
    });
    if let Some(index) = disk.boot_index {
        device["bootindex"] = json!(index);
    }
    device
}

/// The host's half of a card. `tap` and `vhost` name descriptors: numbers on a command line, names given to `getfd`
/// in a hot plug.
pub fn netdev(port: PortId, tap: &str, vhost: Option<&str>) -> Value {
    let mut netdev = json!({"type": "tap", "id": netdev_id(port), "fd": tap});
    if let Some(vhost) = vhost {
        netdev["vhost"] = json!(true);
        netdev["vhostfd"] = json!(vhost);
    }
    netdev
}

/// The guest's half of a card, on `bus`. No boot ROM: guests boot from disks, and firmware starts sooner.
pub fn nic_device(nic: &NicPlan, bus: &str) -> Value {
    json!({
        "driver": "virtio-net-pci",
        "id": nic_id(nic.port),
        "bus": bus,
        "netdev": netdev_id(nic.port),
        "mac": nic.mac.to_string(),
        "host_mtu": nic.mtu,
        "romfile": "",
    })
}

/// Path by which QEMU, once started, reads a file that it inherits under `number`.
pub fn inherited_path(number: i32) -> PathBuf {
    Path::new("/proc/self/fd").join(number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::plan::BackingFile;

    fn disk() -> DiskPlan {
        DiskPlan {
            volume: "6f1c0000-0000-4000-8000-00000000000a".parse().unwrap(),
            path: "/v/top".into(),
            format: DiskFormat::Qcow2,
            backing: vec![
                BackingFile { path: "/v/middle".into(), format: DiskFormat::Qcow2 },
                BackingFile { path: "/v/base".into(), format: DiskFormat::Raw },
            ],
            read_only: false,
            serial: "6f1c0000-0000-4000-8".into(),
            boot_index: None,
            mount_path: None,
        }
    }

    #[test]
    fn a_graph_names_every_node_and_writes_only_at_the_top() {
        let nodes = disk_nodes(&disk(), &[1, 2, 3]);
        let names: Vec<&str> = nodes.iter().filter_map(|node| node["node-name"].as_str()).collect();
        assert!(names.iter().all(|name| name.len() <= 31));
        let writable: Vec<&Value> = nodes.iter().filter(|node| node["read-only"] == false).collect();
        assert_eq!(writable.len(), 2, "the top and its file");
        let top = nodes.last().unwrap();
        assert_eq!(top["backing"], nodes[3]["node-name"]);
        assert_eq!(top["node-name"], top_node(&disk()).as_str());
        assert_eq!(nodes[1]["driver"], "raw");
        let levels = names.iter().map(|name| level_of(disk().volume, name));
        assert_eq!(levels.collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2].map(Some));
        let other = VolumeId::from_random([1; 16]);
        assert!(names.iter().all(|name| level_of(other, name).is_none()));
        let longest = layer_nodes(disk().volume, model::volume::LAYERS_MAX, 1, false);
        assert!(longest.iter().all(|node| node["node-name"].as_str().unwrap().len() <= 31));
    }

    #[test]
    fn a_qcow2_without_backing_files_says_so_whatever_its_header_says() {
        let alone = DiskPlan { backing: vec![], ..disk() };
        let nodes = disk_nodes(&alone, &[1]);
        assert_eq!(nodes[1].get("backing"), Some(&Value::Null));
    }

    #[test]
    fn ids_lead_back_to_their_nouns() {
        let volume = disk().volume;
        assert_eq!(volume_of(&disk_id(volume)), Some(volume));
        assert_eq!(volume_of("disk-x"), None);
        assert_eq!(port_of("disk-00000000000000000000000000000000"), None);
    }

    #[test]
    fn every_port_has_its_own_place() {
        let ports = root_ports();
        assert_eq!(ports.len(), NIC_PORTS + DISK_PORTS + 1);
        let places: std::collections::HashSet<&str> =
            ports.iter().filter_map(|port| port["addr"].as_str()).collect();
        assert_eq!(places.len(), ports.len());
    }
}
