//! Which paths and requests belong to which view.

use crate::v1::types::{
    deployment, event, flavor, floating_ip, image, instance, keypair, network, node, operation, port,
    project, publish, router, security_group, server_group, snapshot, subnet, subnet_pool, token, volume,
};
use serde::{Serialize, de::DeserializeOwned};

/// A noun of the API, known by its view.
pub trait Noun: DeserializeOwned + Serialize + Send {
    /// The collection below `/v1/`.
    const PATH: &'static str;
    /// The noun in words, for messages.
    const NAME: &'static str;
}

/// A noun that can be made.
pub trait Create: Noun {
    /// What is sent.
    type Request: Serialize + Send + Sync;
}

/// A noun that can be changed.
pub trait Update: Noun {
    /// What is sent.
    type Request: Serialize + Send + Sync;
}

macro_rules! nouns {
    ($($view:ty, $path:literal, $name:literal $(, create $create:ty)? $(, update $update:ty)?;)*) => {$(
        impl Noun for $view {
            const PATH: &'static str = $path;
            const NAME: &'static str = $name;
        }
        $(impl Create for $view { type Request = $create; })?
        $(impl Update for $view { type Request = $update; })?
    )*};
}

nouns! {
    project::Project, "projects", "project", create project::CreateProject, update project::UpdateProject;
    image::Image, "images", "image", create image::CreateImage, update image::UpdateImage;
    flavor::Flavor, "flavors", "flavor", create flavor::CreateFlavor, update flavor::UpdateFlavor;
    keypair::Keypair, "keypairs", "keypair", create keypair::CreateKeypair, update keypair::UpdateKeypair;
    network::Network, "networks", "network", create network::CreateNetwork, update network::UpdateNetwork;
    subnet::Subnet, "subnets", "subnet", create subnet::CreateSubnet, update subnet::UpdateSubnet;
    subnet_pool::SubnetPool, "subnet_pools", "subnet pool",
        create subnet_pool::CreateSubnetPool, update subnet_pool::UpdateSubnetPool;
    subnet_pool::AddressScope, "address_scopes", "address scope",
        create subnet_pool::CreateAddressScope, update subnet_pool::UpdateAddressScope;
    router::Router, "routers", "router", create router::CreateRouter, update router::UpdateRouter;
    port::Port, "ports", "port", create port::CreatePort, update port::UpdatePort;
    security_group::SecurityGroup, "security_groups", "security group",
        create security_group::CreateSecurityGroup, update security_group::UpdateSecurityGroup;
    floating_ip::FloatingIp, "floating_ips", "floating IP",
        create floating_ip::CreateFloatingIp, update floating_ip::UpdateFloatingIp;
    server_group::ServerGroup, "server_groups", "server group",
        create server_group::CreateServerGroup, update server_group::UpdateServerGroup;
    volume::Volume, "volumes", "volume", create volume::CreateVolume, update volume::UpdateVolume;
    snapshot::Snapshot, "snapshots", "snapshot",
        create snapshot::CreateSnapshot, update snapshot::UpdateSnapshot;
    instance::Instance, "instances", "instance",
        create instance::CreateInstance, update instance::UpdateInstance;
    deployment::Deployment, "deployments", "deployment",
        create deployment::CreateDeployment, update deployment::UpdateDeployment;
    node::Node, "nodes", "node", update node::UpdateNode;
    operation::Operation, "operations", "operation";
    event::Event, "events", "event";
    token::Token, "tokens", "token";
    publish::Exposed, "exposed", "exposed port";
}

/// What can be done to an instance as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Start it.
    Start,
    /// Ask the guest to stop; pull the plug after its grace time.
    Stop,
    /// Pull the plug.
    Kill,
    /// Stop and start again.
    Reboot,
    /// Pull the plug and start again.
    Reset,
    /// Freeze it.
    Pause,
    /// Put a VM to sleep, with its memory on disk.
    Suspend,
    /// Let it go on.
    Resume,
    /// Let everyone of its project delete it and change its power again.
    Unlock,
    /// End a rescue.
    Unrescue,
    /// Keep the size that is on trial.
    ConfirmSize,
    /// Have the size before the one on trial back.
    RevertSize,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Start,
        Self::Stop,
        Self::Kill,
        Self::Reboot,
        Self::Reset,
        Self::Pause,
        Self::Suspend,
        Self::Resume,
        Self::Unlock,
        Self::Unrescue,
        Self::ConfirmSize,
        Self::RevertSize,
    ];

    /// The word in the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Reboot => "reboot",
            Self::Reset => "reset",
            Self::Pause => "pause",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Unlock => "unlock",
            Self::Unrescue => "unrescue",
            Self::ConfirmSize => "confirm-size",
            Self::RevertSize => "revert-size",
        }
    }
}
