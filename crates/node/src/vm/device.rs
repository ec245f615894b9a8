//! Disks and network cards as QEMU's objects: the same JSON for the command line of a cold start and for a hot plug.
//!
//! QEMU opens no file of a disk itself: each comes as an open descriptor in a numbered set (`/dev/fdset/N`), so QEMU's user
//! needs no right to any path. The graph of a disk is spelled out to its last backing file, because what a qcow2 header
//! says about files was written by whoever made the image. Pure.
//!
//! ```text
//!  pcie.0 ─┬─ slot 2: root port n0       the first network card, on bus 1, for the life of the VM
//!          ├─ slot 2: root port d0       the root disk
//!          └─ slot 3: bridge b           slots 1 to 7: more cards; 8 to 22: more disks; 31: the config drive
//! ```
//!
//! A guest and its firmware look behind every root port, which takes an emulated guest 20 ms each; the places that most
//! guests never use are on one bridge, which costs as much as one port. Buses and slots go up from cards to disks to the
//! config drive, so that disks are vda, vdb, … without it.

use model::{
    id::{PortId, VolumeId},
    instance::{PORTS_MAX, VOLUMES_MAX},
    plan::{DiskFormat, DiskPlan, NicPlan},
};
use serde::{Deserialize, Serialize};
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
/// First slot of the root ports.
const FIRST_SLOT: usize = 2;
/// The bridge's own slot, and its name as a bus.
const BRIDGE_SLOT: usize = FIRST_SLOT + 1;
const BRIDGE: &str = "b";
/// The last slot of a bridge.
const LAST_SLOT: usize = 31;
// Slot 0 is the bridge's controller of hot plugging.
const _: () = assert!(NIC_PORTS + DISK_PORTS <= LAST_SLOT);

/// Where cards and disks are plugged in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// A root port for each card and disk that a VM may ever have. Machines whose record names no layout were made so.
    #[default]
    Ports,
    /// Root ports for the first card and the first disk, a bridge for all others.
    Bridge,
}

/// A file that QEMU gets as an open descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFile {
    /// The file.
    pub path: PathBuf,
    /// Opened for writing too.
    pub writable: bool,
}

impl Layout {
    /// The layout of a machine that has these devices.
    pub fn among(ids: &[String]) -> Self {
        if ids.iter().any(|id| id == BRIDGE) { Self::Bridge } else { Self::Ports }
    }

    /// Place of the n-th network card: the name of a root port, or the bridge's with a slot, `b.0x4`.
    pub fn nic_place(self, index: usize) -> String {
        match (self, index) {
            (Self::Bridge, 1..) => on_bridge(index),
            _ => format!("n{index}"),
        }
    }

    /// Place of the n-th disk.
    pub fn disk_place(self, index: usize) -> String {
        match (self, index) {
            (Self::Bridge, 1..) => on_bridge(NIC_PORTS + index - 1),
            _ => format!("d{index}"),
        }
    }

    /// Place of the config drive.
    pub fn config_drive_place(self) -> String {
        match self {
            Self::Ports => "c0".to_owned(),
            Self::Bridge => on_bridge(LAST_SLOT),
        }
    }

    /// The root ports and bridges, in the order of their slots.
    pub fn buses(self) -> Vec<Value> {
        match self {
            Self::Ports => {
                let cards = (0..NIC_PORTS).map(|index| self.nic_place(index));
                let disks = (0..DISK_PORTS).map(|index| self.disk_place(index));
                root_ports(FIRST_SLOT, cards.chain(disks).chain([self.config_drive_place()]))
            }
            Self::Bridge => {
                let mut buses = root_ports(FIRST_SLOT, [self.nic_place(0), self.disk_place(0)].into_iter());
                buses.push(bridge(format!("{BRIDGE_SLOT:#x}")));
                buses
            }
        }
    }
}

fn on_bridge(slot: usize) -> String {
    format!("{BRIDGE}.{slot:#x}")
}

/// Buses for network cards alone, in one slot: those of [`Layout::Bridge`] without that for a disk.
pub fn nic_buses(slot: usize) -> Vec<Value> {
    let mut buses = root_ports(slot, [Layout::Bridge.nic_place(0)].into_iter());
    buses.push(bridge(format!("{slot:#x}.0x1")));
    buses
}

fn bridge(address: String) -> Value {
    json!({"driver": "pcie-pci-bridge", "id": BRIDGE, "bus": "pcie.0", "addr": address})
}

fn root_ports(first_slot: usize, names: impl Iterator<Item = String>) -> Vec<Value> {
    let port = |(index, name): (usize, String)| {
        let (slot, function) = (first_slot + index / FUNCTIONS, index % FUNCTIONS);
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

/// The place of a device by its bus and its slot there, which a root port has only one of.
pub fn place(bus: &str, slot: u64) -> String {
    if bus == BRIDGE { on_bridge(slot as usize) } else { bus.to_owned() }
}

/// Puts a device in its place. One on a bridge would else offer the interface that was there before virtio 1.0, too.
pub fn put(device: &mut Value, place: &str) {
    match place.split_once('.') {
        Some((bus @ BRIDGE, slot)) => {
            device["bus"] = json!(bus);
            device["addr"] = json!(slot);
            device["disable-legacy"] = json!("on");
        }
        _ => device["bus"] = json!(place),
    }
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

/// The disk's device in its place.
pub fn disk_device(disk: &DiskPlan, place: &str) -> Value {
    let mut device = json!({
        "driver": "virtio-blk-pci",
        "id": disk_id(disk.volume),
        "drive": top_node(disk),
        "serial": disk.serial,
        "write-cache": "on",
    });
    put(&mut device, place);
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

/// The guest's half of a card, in its place. No boot ROM: guests boot from disks, and firmware starts sooner.
pub fn nic_device(nic: &NicPlan, place: &str) -> Value {
    let mut device = json!({
        "driver": "virtio-net-pci",
        "id": nic_id(nic.port),
        "netdev": netdev_id(nic.port),
        "mac": nic.mac.to_string(),
        "host_mtu": nic.mtu,
        "romfile": "",
    });
    put(&mut device, place);
    device
}

/// Path by which QEMU, once started, reads a file that it inherits under `number`.
pub fn inherited_path(number: i32) -> PathBuf {
    Path::new("/proc/self/fd").join(number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::plan::BackingFile;
    use std::collections::HashSet;

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
    fn every_device_has_its_own_place() {
        for layout in [Layout::Ports, Layout::Bridge] {
            let cards = (0..NIC_PORTS).map(|index| layout.nic_place(index));
            let disks = (0..DISK_PORTS).map(|index| layout.disk_place(index));
            let places: HashSet<String> = cards.chain(disks).chain([layout.config_drive_place()]).collect();
            assert_eq!(places.len(), NIC_PORTS + DISK_PORTS + 1);
            let buses = layout.buses();
            let addresses: HashSet<&str> = buses.iter().filter_map(|bus| bus["addr"].as_str()).collect();
            assert_eq!(addresses.len(), buses.len());
            let named: HashSet<&str> = buses.iter().filter_map(|bus| bus["id"].as_str()).collect();
            let wanted: HashSet<&str> = places.iter().map(|place| place.split('.').next().unwrap()).collect();
            assert_eq!(named, wanted);
        }
    }

    #[test]
    fn a_place_is_known_again_by_its_bus_and_slot() {
        let on_port = Layout::Bridge.disk_place(0);
        assert_eq!(place(&on_port, 0), on_port);
        let on_bridge = Layout::Bridge.disk_place(3);
        assert_eq!(place("b", 10), on_bridge);
        let mut device = json!({});
        put(&mut device, &on_bridge);
        assert_eq!(device, json!({"bus": "b", "addr": "0xa", "disable-legacy": "on"}));
    }
}
