//! What instances need of networks: that one is there before a guest is plugged into it, and where.
//!
//! A line of its own, so that the life of instances can be proven without the kernel's network.

use super::Instances;
use crate::network::{
    reconcile::{NetworkError, Networks},
    traffic::{self, Traffic},
};
use async_trait::async_trait;
use model::{dataplane::namespace::Place, id::NetworkId, instance::Instance};
use std::{path::PathBuf, sync::Arc};
use tokio::task::spawn_blocking;

/// The networks of this node, as instances use them.
#[async_trait]
pub trait Wires: Send + Sync + 'static {
    /// Makes a network with the devices of all its ports true. Doing it again does nothing.
    ///
    /// # Errors
    /// What was refused; trying again goes on from there.
    async fn ensure(&self, network: NetworkId) -> Result<(), NetworkError>;

    /// Path of a network's namespace handle.
    fn handle(&self, network: NetworkId) -> PathBuf;
}

impl Instances {
    /// What has passed each port of an instance that has a device now, in the order of its ports; a port without one is passed
    /// over.
    pub async fn traffic(&self, instance: &Instance) -> Vec<(usize, Traffic)> {
        let ports = self.gather.ports(&instance.ports).into_iter().enumerate();
        let places: Vec<_> = ports.map(|(at, port)| (at, self.wires.handle(port.network), port)).collect();
        let counted = spawn_blocking(move || {
            let counted =
                places.iter().filter_map(|(at, handle, port)| Some((*at, traffic::of(handle, port).ok()??)));
            counted.collect()
        });
        counted.await.unwrap_or_default()
    }
}

#[async_trait]
impl Wires for Arc<Networks> {
    async fn ensure(&self, network: NetworkId) -> Result<(), NetworkError> {
        self.run(Place::Network(network)).await
    }

    fn handle(&self, network: NetworkId) -> PathBuf {
        Networks::handle(self, network)
    }
}
