//! Who this host is, an id made once, and the key to what records do not tell: kept in the state directory.

use model::{
    id::NodeId,
    seal::{KEY_BYTES, SealKey},
};
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

/// The key for what records must not tell, made at the first start. It lies beside the records, and no copy of these has it.
pub fn seal_key(state: &Path) -> io::Result<SealKey> {
    let path = state.join("seal.key");
    match std::fs::read(&path) {
        Ok(bytes) => {
            let bytes: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no key", path.display()))
            })?;
            Ok(SealKey::new(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let bytes: [u8; KEY_BYTES] = rand::random();
            sys::file::write_atomic(&path, &bytes, 0o600).map_err(io::Error::other)?;
            Ok(SealKey::new(bytes))
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
