//! What instances need of networks: that one is there before a guest is plugged into it, and where.
//!
//! A line of its own, so that the life of instances can be proven without the kernel's network.

use crate::network::reconcile::{NetworkError, Networks};
use async_trait::async_trait;
use model::{dataplane::namespace::Place, id::NetworkId};
use std::{path::PathBuf, sync::Arc};

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

#[async_trait]
impl Wires for Arc<Networks> {
    async fn ensure(&self, network: NetworkId) -> Result<(), NetworkError> {
        self.run(Place::Network(network)).await
    }

    fn handle(&self, network: NetworkId) -> PathBuf {
        Networks::handle(self, network)
    }
}
