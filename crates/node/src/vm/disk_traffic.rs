//! What passed between a VM and its disks: QEMU counts it for each device that the guest sees.

use super::qmp::{Qmp, QmpError};
use crate::driver::DiskTraffic;
use serde_json::{Value, json};

/// Bytes since QEMU's start, of all disks that are plugged in now.
///
/// # Errors
/// The monitor's.
pub async fn of(qmp: &Qmp) -> Result<DiskTraffic, QmpError> {
    Ok(sum(&qmp.execute("query-blockstats", json!({})).await?))
}

/// Each entry is what one device has done; what the files below it did is told inside of it, and would count twice.
fn sum(told: &Value) -> DiskTraffic {
    let devices = || told.as_array().into_iter().flatten();
    let bytes = |of: &str| {
        let counted = devices().filter_map(|device| device["stats"][of].as_u64());
        counted.fold(0, u64::saturating_add)
    };
    DiskTraffic { read_bytes: bytes("rd_bytes"), written_bytes: bytes("wr_bytes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_count_and_their_files_do_not() {
        let device = |read: u64, written: u64| {
            json!({
                "qdev": "/machine/peripheral/disk-1/virtio-backend",
                "stats": {"rd_bytes": read, "wr_bytes": written, "rd_operations": 9},
                "parent": {"stats": {"rd_bytes": 7, "wr_bytes": 7}},
                "backing": {"stats": {"rd_bytes": 7, "wr_bytes": 7}},
            })
        };
        let told = json!([device(1_000, 20), device(0, 3), {"qdev": "odd"}]);
        assert_eq!(sum(&told), DiskTraffic { read_bytes: 1_000, written_bytes: 23 });
        assert_eq!(sum(&json!(null)), DiskTraffic::default());
    }
}
