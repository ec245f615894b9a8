//! Who this host is: an id made once, kept in the state directory.

use model::id::NodeId;
use std::{io, path::Path};

/// The node's id, made at the first start.
pub fn node_id(state: &Path) -> io::Result<NodeId> {
    let path = state.join("node-id");
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no node id", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = NodeId::from_random(rand::random());
            sys::file::write_atomic(&path, format!("{id}\n").as_bytes(), 0o644).map_err(io::Error::other)?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}

/// The number of a group by name, from /etc/group (group(5)).
pub fn group_id(name: &str) -> io::Result<u32> {
    let text = std::fs::read_to_string("/etc/group")?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    let id = line.and_then(|line| line.split(':').nth(2)).and_then(|id| id.parse().ok());
    id.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no group {name}")))
}

/// The host's name, as the kernel has it.
pub fn host_name() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = text.trim();
    if name.is_empty() { "localhost".into() } else { name.to_string() }
}
