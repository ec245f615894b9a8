//! Freezing a disk under a running guest: its writes go to a new layer, and what is below never changes again.
//!
//! ```text
//!   before:  device ──► b1 ──► b0          after:  device ──► b2 ──► b1 ──► b0
//! ```
//!
//! QEMU holds the guest's requests for the moment in which it exchanges the two nodes, no longer, whatever the size of the
//! disk. Each step looks first, so that all may be done again after a crash between any two.

use model::plan::DiskPlan;
use serde_json::{Value, json};
use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use super::{
    device::{self, DiskFile},
    hotplug::add_file,
    launch,
    qmp::Qmp,
};
use crate::driver::DriverError;

/// Leads the guest's writes to the uppermost of these layers, which are empty qcow2 files, lowest first. `disk` is as it
/// was before the first of them.
pub async fn stack_disk(qmp: &Qmp, disk: &DiskPlan, above: &[PathBuf]) -> Result<(), DriverError> {
    let id = device::disk_id(disk.volume);
    let Some(mut top) = top_level(qmp, disk, &id).await? else {
        return Err(DriverError::Refused {
            operation: format!("freezing volume {}", disk.volume),
            answer: "it is not plugged in".to_owned(),
        });
    };
    for (place, path) in above.iter().enumerate() {
        let level = disk.backing.len() + 1 + place;
        if level <= top {
            continue;
        }
        let now_bytes = size_bytes(qmp, &device::format_node(disk.volume, top)).await?;
        let layer = device::format_node(disk.volume, level);
        if now_bytes.is_none() || size_bytes(qmp, &layer).await?.is_none() {
            add_layer(qmp, disk, level, path, &id).await?;
        }
        // The disk may have grown since the layer was made.
        if let (Some(now_bytes), Some(layer_bytes)) = (now_bytes, size_bytes(qmp, &layer).await?)
            && layer_bytes < now_bytes
        {
            qmp.execute("block_resize", json!({"node-name": layer, "size": now_bytes})).await?;
        }
        let below = device::format_node(disk.volume, top);
        qmp.execute("blockdev-snapshot", json!({"node": below, "overlay": layer})).await?;
        top = level;
    }
    Ok(())
}

async fn add_layer(
    qmp: &Qmp,
    disk: &DiskPlan,
    level: usize,
    path: &Path,
    owner: &str,
) -> Result<(), DriverError> {
    // The file's node may be left from an attempt that was cut short.
    let file_node = device::file_node_name(disk.volume, level);
    if node(qmp, &file_node).await?.is_some() {
        qmp.execute("blockdev-del", json!({"node-name": file_node})).await?;
    }
    let file: OwnedFd = launch::open_disk(&DiskFile { path: path.to_path_buf(), writable: !disk.read_only })?;
    let set = add_file(qmp, &file, owner).await?;
    for node in device::layer_nodes(disk.volume, level, set, disk.read_only) {
        qmp.execute("blockdev-add", node).await?;
    }
    Ok(())
}

/// The level of the node to which the guest's device writes; `None` if there is no such device.
async fn top_level(qmp: &Qmp, disk: &DiskPlan, id: &str) -> Result<Option<usize>, DriverError> {
    let blocks = qmp.execute("query-block", json!({})).await?;
    let path = format!("/machine/peripheral/{id}/");
    let is_ours = |block: &&Value| {
        block["qdev"].as_str().is_some_and(|qdev| qdev == id || format!("{qdev}/").starts_with(&path))
    };
    let block = blocks.as_array().into_iter().flatten().find(is_ours);
    let name = block.and_then(|block| block["inserted"]["node-name"].as_str());
    Ok(name.and_then(|name| device::level_of(disk.volume, name)))
}

async fn node(qmp: &Qmp, name: &str) -> Result<Option<Value>, DriverError> {
    let nodes = qmp.execute("query-named-block-nodes", json!({"flat": true})).await?;
    let mut nodes = nodes.as_array().into_iter().flatten();
    Ok(nodes.find(|node| node["node-name"] == name).cloned())
}

async fn size_bytes(qmp: &Qmp, name: &str) -> Result<Option<u64>, DriverError> {
    Ok(node(qmp, name).await?.and_then(|node| node["image"]["virtual-size"].as_u64()))
}
