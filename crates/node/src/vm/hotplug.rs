//! Plugging disks and network cards into a running VM and out again, over its monitor.
//!
//! Each verb looks first and does what is missing, so that it can be repeated after a crash between any two steps: a graph
//! without its device is taken down and made anew; a device that the guest has not let go of is asked for again.
//!
//! ```text
//!  disk: descriptors → nodes, lowest first → device        out: device_del … DEVICE_DELETED → nodes, top first → descriptors
//!  card: descriptor  → netdev              → device        out: device_del … DEVICE_DELETED → netdev
//! ```

use model::{
    id::{PortId, VolumeId},
    plan::{DiskPlan, NicPlan},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, timeout_at},
};

use super::{
    device::{self, Layout},
    qmp::{DEADLINE, Qmp, QmpError},
};
use crate::driver::DriverError;

/// A guest lets go of a device within this time, or is asked again later. PCIe's attention button alone takes 5 s.
pub const UNPLUG_DEADLINE: Duration = Duration::from_secs(15);

/// A function's bits in the number of a place on a bus.
const FUNCTION_BITS: u32 = 3;

/// Open descriptors of a network card.
#[derive(Debug)]
pub struct CardFiles {
    /// The tap.
    pub tap: OwnedFd,
    /// `/dev/vhost-net`, where it is used.
    pub vhost: Option<OwnedFd>,
}

/// Ids of the devices that are plugged in.
async fn plugged(qmp: &Qmp) -> Result<Vec<String>, QmpError> {
    let list = qmp.execute("qom-list", json!({"path": "/machine/peripheral"})).await?;
    let names = list.as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// Cards and disks that are plugged in.
pub async fn attached(qmp: &Qmp) -> Result<(Vec<PortId>, Vec<VolumeId>), QmpError> {
    let ids = plugged(qmp).await?;
    let cards = ids.iter().filter_map(|id| device::port_of(id)).collect();
    let disks = ids.iter().filter_map(|id| device::volume_of(id)).collect();
    Ok((cards, disks))
}

/// In which place each card and disk is, by the ids of their devices.
pub async fn places(qmp: &Qmp) -> Result<BTreeMap<String, String>, QmpError> {
    let mut places = BTreeMap::new();
    for id in plugged(qmp).await? {
        if device::port_of(&id).is_none() && device::volume_of(&id).is_none() {
            continue;
        }
        let path = format!("/machine/peripheral/{id}");
        let ask = async |property| qmp.execute("qom-get", json!({"path": path, "property": property})).await;
        match (ask("parent_bus").await, ask("addr").await) {
            // "/machine/peripheral/d3/d3", and a slot with a function.
            (Ok(bus), Ok(address)) => {
                let name = bus.as_str().and_then(|path| path.rsplit('/').next());
                let slot = address.as_u64().unwrap_or_default() >> FUNCTION_BITS;
                places.extend(name.map(|name| (id, device::place(name, slot))));
            }
            // It was unplugged meanwhile.
            (Err(QmpError::Refused { .. }), _) | (_, Err(QmpError::Refused { .. })) => {}
            (Err(error), _) | (_, Err(error)) => return Err(error),
        }
    }
    Ok(places)
}

/// The first of `all` places of the machine's layout that no device is in.
async fn free_place(
    qmp: &Qmp,
    all: impl Fn(Layout) -> Vec<String>,
    what: &str,
) -> Result<String, DriverError> {
    let taken: HashSet<String> = places(qmp).await?.into_values().collect();
    let all = all(Layout::among(&plugged(qmp).await?));
    let limit = all.len();
    all.into_iter().find(|place| !taken.contains(place)).ok_or_else(|| DriverError::Unsupported {
        what: format!("all {limit} places for {what} of this VM are taken"),
        hint: format!("Detach one of its {what} first."),
    })
}

/// Plugs a disk in. `files` are its open files in the order of [`device::disk_files`].
pub async fn attach_disk(qmp: &Qmp, disk: &DiskPlan, files: Vec<OwnedFd>) -> Result<(), DriverError> {
    let id = device::disk_id(disk.volume);
    if plugged(qmp).await?.contains(&id) {
        return Ok(());
    }
    remove_disk_backend(qmp, disk.volume).await?;
    let all = |layout: Layout| (0..device::DISK_PORTS).map(|index| layout.disk_place(index)).collect();
    let place = free_place(qmp, all, "disks").await?;
    let result = add_disk(qmp, disk, &files, &place, &id).await;
    if result.is_err() {
        // What the failure left is removed now or by the next attempt.
        let _ = remove_disk_backend(qmp, disk.volume).await;
    }
    result
}

async fn add_disk(
    qmp: &Qmp,
    disk: &DiskPlan,
    files: &[OwnedFd],
    place: &str,
    id: &str,
) -> Result<(), DriverError> {
    let mut sets = Vec::new();
    for file in files {
        sets.push(add_file(qmp, file, id).await?);
    }
    for node in device::disk_nodes(disk, &sets) {
        qmp.execute("blockdev-add", node).await?;
    }
    qmp.execute("device_add", device::disk_device(disk, place)).await?;
    Ok(())
}

/// Gives QEMU an open file, in a set of its own. `owner` is the id of the device that it is for.
pub async fn add_file(qmp: &Qmp, file: &OwnedFd, owner: &str) -> Result<u64, DriverError> {
    let reply = qmp.execute_with("add-fd", json!({"opaque": owner}), &[file.as_fd()], DEADLINE).await?;
    let refused = || DriverError::Refused { operation: "add-fd".to_owned(), answer: reply.to_string() };
    reply["fdset-id"].as_u64().ok_or_else(refused)
}

/// Makes a disk larger under the guest, which hears of it. Another size than a larger one is refused: QEMU would cut
/// the disk.
pub async fn grow_disk(qmp: &Qmp, disk: &DiskPlan, size_bytes: u64) -> Result<(), DriverError> {
    let node = device::top_node(disk);
    let nodes = qmp.execute("query-named-block-nodes", json!({"flat": true})).await?;
    let mut nodes = nodes.as_array().into_iter().flatten();
    let Some(found) = nodes.find(|found| found["node-name"] == node.as_str()) else {
        return Err(DriverError::Refused {
            operation: format!("growing volume {}", disk.volume),
            answer: "it is not plugged in".to_owned(),
        });
    };
    match found["image"]["virtual-size"].as_u64() {
        Some(now_bytes) if now_bytes >= size_bytes => Ok(()),
        _ => {
            qmp.execute("block_resize", json!({"node-name": node, "size": size_bytes})).await?;
            Ok(())
        }
    }
}

/// Unplugs a disk and takes its graph down once the guest has let go.
pub async fn detach_disk(qmp: &Qmp, volume: VolumeId) -> Result<(), DriverError> {
    unplug(qmp, &device::disk_id(volume)).await?;
    remove_disk_backend(qmp, volume).await
}

/// Plugs a network card in.
pub async fn attach_nic(qmp: &Qmp, nic: &NicPlan, files: CardFiles) -> Result<(), DriverError> {
    if plugged(qmp).await?.contains(&device::nic_id(nic.port)) {
        return Ok(());
    }
    remove_netdev(qmp, nic.port).await?;
    let all = |layout: Layout| (0..device::NIC_PORTS).map(|index| layout.nic_place(index)).collect();
    let place = free_place(qmp, all, "network cards").await?;
    let tap = format!("tap-{}", nic.port.hex());
    qmp.execute_with("getfd", json!({"fdname": tap}), &[files.tap.as_fd()], DEADLINE).await?;
    let vhost = files.vhost.as_ref().map(|_| format!("vhost-{}", nic.port.hex()));
    if let (Some(name), Some(file)) = (&vhost, &files.vhost) {
        qmp.execute_with("getfd", json!({"fdname": name}), &[file.as_fd()], DEADLINE).await?;
    }
    let netdev = device::netdev(nic.port, &tap, vhost.as_deref());
    let result = async {
        qmp.execute("netdev_add", netdev).await?;
        qmp.execute("device_add", device::nic_device(nic, &place)).await
    };
    if let Err(error) = result.await {
        let _ = remove_netdev(qmp, nic.port).await;
        // Refused when the descriptor was used up already.
        for name in [Some(tap), vhost].into_iter().flatten() {
            let _ = qmp.execute("closefd", json!({"fdname": name})).await;
        }
        return Err(error.into());
    }
    Ok(())
}

/// Unplugs a network card.
pub async fn detach_nic(qmp: &Qmp, port: PortId) -> Result<(), DriverError> {
    unplug(qmp, &device::nic_id(port)).await?;
    remove_netdev(qmp, port).await
}

/// Asks the guest to let go of a device and waits until it has.
async fn unplug(qmp: &Qmp, id: &str) -> Result<(), DriverError> {
    let deadline = Instant::now() + UNPLUG_DEADLINE;
    let mut events = qmp.events();
    if !plugged(qmp).await?.iter().any(|plugged| plugged == id) {
        return Ok(());
    }
    match qmp.execute("device_del", json!({"id": id})).await {
        // It is being unplugged already, or has just gone.
        Ok(_) | Err(QmpError::Refused { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    loop {
        match timeout_at(deadline, events.recv()).await {
            Ok(Ok(event)) if event.data["device"] == id && event.name == "DEVICE_DELETED" => return Ok(()),
            Ok(Ok(event)) if event.data["device"] == id && event.name == "DEVICE_UNPLUG_GUEST_ERROR" => {
                return Err(DriverError::Refused {
                    operation: format!("unplugging {id}"),
                    answer: "the guest refuses to let go of the device".to_owned(),
                });
            }
            Ok(Ok(_)) => {}
            Ok(Err(RecvError::Lagged(_))) if plugged(qmp).await?.iter().any(|plugged| plugged == id) => {}
            Ok(Err(RecvError::Lagged(_))) => return Ok(()),
            Ok(Err(RecvError::Closed)) => return Err(DriverError::NotRunning),
            Err(_) if qmp.is_closed() => return Err(DriverError::NotRunning),
            Err(_) => {
                let what = "the guest, asked to let go of the device,".to_owned();
                return Err(DriverError::Timeout { what, after_ms: UNPLUG_DEADLINE.as_millis() as u64 });
            }
        }
    }
}

/// Removes the graph and the descriptors of a disk, as far as they are there.
async fn remove_disk_backend(qmp: &Qmp, volume: VolumeId) -> Result<(), DriverError> {
    let listed = qmp.execute("query-named-block-nodes", json!({"flat": true})).await?;
    let names = listed.as_array().into_iter().flatten().filter_map(|node| node["node-name"].as_str());
    let mut present: Vec<(usize, &str)> =
        names.filter_map(|name| Some((device::level_of(volume, name)?, name))).collect();
    // Top first, and each before its file: "b" is before "f".
    present.sort_by_key(|(level, name)| (std::cmp::Reverse(*level), *name));
    for (_, name) in present {
        qmp.execute("blockdev-del", json!({"node-name": name})).await?;
    }
    let owner = device::disk_id(volume);
    let sets = qmp.execute("query-fdsets", json!({})).await?;
    for set in sets.as_array().into_iter().flatten() {
        let ours = |file: &Value| file["opaque"] == owner.as_str();
        if set["fds"].as_array().is_some_and(|files| files.iter().any(ours)) {
            qmp.execute("remove-fd", json!({"fdset-id": set["fdset-id"]})).await?;
        }
    }
    Ok(())
}

async fn remove_netdev(qmp: &Qmp, port: PortId) -> Result<(), DriverError> {
    match qmp.execute("netdev_del", json!({"id": device::netdev_id(port)})).await {
        // Not there.
        Ok(_) | Err(QmpError::Refused { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
