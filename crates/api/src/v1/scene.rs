//! What views are made from: the cloud as one caller sees it, with look-ups shared by all views of one answer.

use crate::v1::types::Reference;
use control::{Caller, Control, resolve::Noun};
use model::{
    id::{InstanceId, NetworkId, NodeId, PortId, ProjectId},
    instance::Instance,
    network::Network,
    node::Node,
    project::Project,
};
use std::{cell::OnceCell, net::IpAddr};
use uuid::Uuid;

/// The cloud as one caller sees it, for one answer.
pub struct Scene<'a> {
    /// The cloud.
    pub control: &'a Control,
    /// The one who looks.
    pub caller: &'a Caller,
    network: OnceCell<control::Result<NetworkId>>,
    instance: OnceCell<control::Result<InstanceId>>,
}

impl<'a> Scene<'a> {
    /// A scene for one answer.
    pub fn new(control: &'a Control, caller: &'a Caller) -> Self {
        Self { control, caller, network: OnceCell::new(), instance: OnceCell::new() }
    }

    /// Id and name of a record.
    pub fn reference<R: Noun<Id: Into<Uuid>>>(&self, id: R::Id) -> Reference {
        let name = self.control.get::<R>(id).map(|found| found.record.meta().name.to_string());
        Reference { id: id.into(), name: name.unwrap_or_default() }
    }

    /// Id and name of a project.
    pub fn project(&self, id: ProjectId) -> Reference {
        self.reference::<Project>(id)
    }

    /// Id and name of a host.
    pub fn node(&self, id: NodeId) -> Reference {
        let found = self.control.store().get::<Node>(&id.to_string());
        Reference { id: id.0, name: found.map(|n| n.record.name.to_string()).unwrap_or_default() }
    }

    /// The network that a list's filter names. One answer has one filter, so it is found once.
    ///
    /// # Errors
    /// `not_found`, `conflict` if several fit.
    pub fn network_meant(&self, reference: &str) -> control::Result<NetworkId> {
        let find = || {
            let found = self.control.find_for::<Network>(self.caller, "network", reference)?;
            Ok(found.record.meta.id)
        };
        self.network.get_or_init(find).clone()
    }

    /// The instance that a list's filter names.
    ///
    /// # Errors
    /// `not_found`, `conflict` if several fit.
    pub fn instance_meant(&self, reference: &str) -> control::Result<InstanceId> {
        let find = || {
            let found = self.control.find_for::<Instance>(self.caller, "instance", reference)?;
            Ok(found.record.meta.id)
        };
        self.instance.get_or_init(find).clone()
    }

    /// Floating addresses that lead to a port.
    pub fn floating_of(&self, port: PortId) -> Vec<IpAddr> {
        let all = self.control.floating_of(port);
        all.iter().filter(|f| !f.record.internal).map(|f| f.record.address).collect()
    }
}
