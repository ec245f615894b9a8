//! The tables of a cloud: what the mirror keeps in memory, and by what it finds records besides their keys.
//!
//! A read about one thing must not walk all things of the cloud: whoever needs "those of that" adds an index here.

use crate::{
    resolve::Noun,
    session::{EndedSession, SigningKey},
    token::Token,
};
use model::{
    address_scope::AddressScope,
    application_credential::ApplicationCredential,
    assignment::Assignment,
    deployment::{Deployment, DeploymentStatus, OBJECT_LABEL, autoscale::DeploymentScale},
    domain::Domain,
    flavor::Flavor,
    floating_ip::FloatingIp,
    group::{Group, Membership},
    health::status::ContainerHealth,
    id::InstanceId,
    image::{Image, ImageStatus},
    instance::{Instance, InstanceStatus},
    keypair::Keypair,
    network::Network,
    node::{Node, NodeStatus},
    operation::{Event, Operation},
    port::{Device, Port},
    project::Project,
    publish::HostPort,
    role::Role,
    router::Router,
    security_group::SecurityGroup,
    server_group::ServerGroup,
    snapshot::Snapshot,
    subnet::Subnet,
    subnet_pool::SubnetPool,
    user::{Failures, User},
    volume::{Volume, VolumeStatus, transfer::Transfer},
    volume_type::VolumeType,
};
use store::{Index, Schema};

/// Floating IPs, internal ones too, by the port that they lead to.
pub const FLOATING_BY_PORT: Index<FloatingIp> =
    Index::new("port", |floating| floating.target.iter().map(|target| target.port.to_string()).collect());
/// Floating IPs by the external network that they are of.
pub const FLOATING_BY_NETWORK: Index<FloatingIp> =
    Index::new("network", |floating| vec![floating.network.to_string()]);
/// Ports by the network that they are in.
pub const PORT_BY_NETWORK: Index<Port> = Index::new("network", |port| vec![port.network.to_string()]);
/// Ports by the id of the instance or router that has them, or of what uses them elsewhere.
pub const PORT_BY_DEVICE: Index<Port> = Index::new("device", |port| match port.device {
    Device::Instance(id) => vec![id.to_string()],
    Device::RouterInterface(id) | Device::RouterGateway(id) => vec![id.to_string()],
    Device::None => port.foreign_user.iter().map(|user| device_key(&user.id)).collect(),
    Device::FloatingIp => vec![],
});
/// Subnets by the network that they are of.
pub const SUBNET_BY_NETWORK: Index<Subnet> = Index::new("network", |subnet| vec![subnet.network.to_string()]);
/// Routers by the subnets that they join.
pub const ROUTER_BY_SUBNET: Index<Router> =
    Index::new("subnet", |router| router.interfaces.iter().map(|joined| joined.subnet.to_string()).collect());
/// Instances by the server group that they are in.
pub const INSTANCE_BY_SERVER_GROUP: Index<Instance> =
    Index::new("server_group", |instance| instance.server_group.iter().map(ToString::to_string).collect());
/// Instances by the object of a file that they were made of.
pub const INSTANCE_BY_OBJECT: Index<Instance> =
    Index::new("object", |instance| instance.meta.labels.get(OBJECT_LABEL).cloned().into_iter().collect());
/// Volumes by the instance that has them.
pub const VOLUME_BY_INSTANCE: Index<Volume> =
    Index::new("instance", |volume| volume.attached_to.iter().map(ToString::to_string).collect());
/// Volumes by those whose layers they stand on.
pub const VOLUME_BY_GROUND: Index<Volume> = Index::new("ground", |volume| {
    volume.ground().stretches.iter().map(|stretch| stretch.volume.to_string()).collect()
});
/// Snapshots by their volume.
pub const SNAPSHOT_BY_VOLUME: Index<Snapshot> =
    Index::new("volume", |snapshot| vec![snapshot.volume.to_string()]);
/// Offers by their volume.
pub const TRANSFER_BY_VOLUME: Index<Transfer> =
    Index::new("volume", |transfer| vec![transfer.volume.to_string()]);
/// Operations by the id of what they were done to.
pub const OPERATION_BY_SUBJECT: Index<Operation> =
    Index::new("subject", |operation| vec![operation.subject.id.clone()]);

/// What [`PORT_BY_DEVICE`] files an id under: UUIDs are the same with dashes and without.
pub fn device_key(id: &str) -> String {
    id.parse::<InstanceId>().map_or_else(|_| id.to_string(), |id| id.to_string())
}

/// Records that users name, by their names. Projects may share names.
pub fn by_name<R: Noun>() -> Index<R> {
    Index::new("name", |record| vec![record.meta().name.to_string()])
}

/// Records that users name, by the project that they are of.
pub fn by_project<R: Noun>() -> Index<R> {
    Index::new("project", |record| vec![record.meta().project.to_string()])
}

fn noun<R: Noun>(schema: Schema) -> Schema {
    schema.index(by_name::<R>()).index(by_project::<R>())
}

/// Every table that holm keeps.
pub fn schema() -> Schema {
    indexed(nouns(Schema::new()))
        .table::<ImageStatus>()
        .table::<HostPort>()
        .table::<InstanceStatus>()
        .table::<DeploymentStatus>()
        .table::<DeploymentScale>()
        .table::<ContainerHealth>()
        .table::<VolumeStatus>()
        .table::<Transfer>()
        .table::<Node>()
        .table::<NodeStatus>()
        .table::<Operation>()
        .table::<Event>()
        .table::<Token>()
        .table::<Domain>()
        .table::<User>()
        .table::<Failures>()
        .table::<Group>()
        .table::<Membership>()
        .table::<Role>()
        .table::<Assignment>()
        .table::<ApplicationCredential>()
        .table::<SigningKey>()
        .table::<EndedSession>()
}

fn nouns(schema: Schema) -> Schema {
    let schema = noun::<Project>(schema);
    let schema = noun::<Flavor>(schema);
    let schema = noun::<Keypair>(schema);
    let schema = noun::<Image>(schema);
    let schema = noun::<Network>(schema);
    let schema = noun::<Subnet>(schema);
    let schema = noun::<SubnetPool>(schema);
    let schema = noun::<AddressScope>(schema);
    let schema = noun::<Router>(schema);
    let schema = noun::<Port>(schema);
    let schema = noun::<SecurityGroup>(schema);
    let schema = noun::<FloatingIp>(schema);
    let schema = noun::<ServerGroup>(schema);
    let schema = noun::<Instance>(schema);
    let schema = noun::<Deployment>(schema);
    let schema = noun::<Volume>(schema);
    let schema = noun::<VolumeType>(schema);
    noun::<Snapshot>(schema)
}

fn indexed(schema: Schema) -> Schema {
    schema
        .index(FLOATING_BY_PORT)
        .index(FLOATING_BY_NETWORK)
        .index(PORT_BY_NETWORK)
        .index(PORT_BY_DEVICE)
        .index(SUBNET_BY_NETWORK)
        .index(ROUTER_BY_SUBNET)
        .index(INSTANCE_BY_SERVER_GROUP)
        .index(INSTANCE_BY_OBJECT)
        .index(VOLUME_BY_INSTANCE)
        .index(VOLUME_BY_GROUND)
        .index(SNAPSHOT_BY_VOLUME)
        .index(TRANSFER_BY_VOLUME)
        .index(OPERATION_BY_SUBJECT)
}
