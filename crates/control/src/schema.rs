//! The tables of a cloud: what the mirror keeps in memory.

use crate::{
    session::{EndedSession, SigningKey},
    token::Token,
};
use model::{
    address_scope::AddressScope,
    application_credential::ApplicationCredential,
    assignment::Assignment,
    domain::Domain,
    flavor::Flavor,
    floating_ip::FloatingIp,
    group::{Group, Membership},
    image::{Image, ImageStatus},
    instance::{Instance, InstanceStatus},
    keypair::Keypair,
    network::Network,
    node::{Node, NodeStatus},
    operation::{Event, Operation},
    port::Port,
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
    volume::{Volume, VolumeStatus},
};
use store::Schema;

/// Every table that holm keeps.
pub fn schema() -> Schema {
    Schema::new()
        .table::<Project>()
        .table::<Flavor>()
        .table::<Keypair>()
        .table::<Image>()
        .table::<ImageStatus>()
        .table::<Network>()
        .table::<Subnet>()
        .table::<SubnetPool>()
        .table::<AddressScope>()
        .table::<Router>()
        .table::<Port>()
        .table::<SecurityGroup>()
        .table::<FloatingIp>()
        .table::<ServerGroup>()
        .table::<HostPort>()
        .table::<Instance>()
        .table::<InstanceStatus>()
        .table::<Volume>()
        .table::<VolumeStatus>()
        .table::<Snapshot>()
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
