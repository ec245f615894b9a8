//! Makes the machine what the order says, so that the shim finds what it would find on a host.

use super::{
    super::order::Order,
    Outcome, Step,
    disks::{self, make_directory},
    network,
};
use crate::container::{driver::content, protocol::POD};
use std::fs;
use sys::machine;

/// Clock, host name, disks, network, and the pod's own files.
///
/// # Errors
/// The step that failed, and why, for people.
pub fn prepare(order: &Order) -> Outcome {
    machine::set_clock(order.now_ns).step(|| "set the clock".into())?;
    machine::set_hostname(&order.pod.hostname).step(|| "set the host name".into())?;
    let places = &order.pod.places;
    for directory in [&places.run, &places.state, &places.state.join("logs")] {
        make_directory(directory)?;
    }
    disks::mount_all(&order.disks)?;
    if !order.maintenance {
        network::set_up(order.pod.ids, &order.nics)?;
        content::write(places, &order.files).step(|| "write the files that containers are shown".into())?;
    }
    let path = places.state.join(POD);
    let text = serde_json::to_vec(&order.pod).map_err(std::io::Error::from);
    text.and_then(|text| fs::write(&path, text)).step(|| format!("write {}", path.display()))
}
