//! Published ports and exposure on the wire.

use super::Reference;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::{IntoParams, ToSchema};

/// A port of the host that leads to a port of an instance. It opens nothing: the security groups still decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedPort {
    /// The host's address; `0.0.0.0` is every IPv4 and `::` every IPv6 one; every one of both when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The host's port; asked for as 0 or left out, a free one from 32768 on is chosen.
    #[serde(default)]
    pub host_port: u16,
    /// The instance's port.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    #[serde(default = "tcp")]
    pub protocol: String,
}

/// A published port that shall go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnpublishPort {
    /// On this address of the host alone; on every one when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// `tcp`, `udp` or `sctp`.
    #[serde(default = "tcp")]
    pub protocol: String,
}

fn tcp() -> String {
    "tcp".into()
}

/// Something that can be reached from outside, and who gets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exposed {
    /// `floating_ip` or `published`.
    pub way: String,
    /// Project.
    pub project: Reference,
    /// Instance, unless a floating IP leads to a port without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Reference>,
    /// Port of a network that it leads to.
    pub port: Reference,
    /// Outside address; `0.0.0.0` and `::` are every address of the host.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Protocol; every one when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Ports outside, like `80` or `8000-8080`; every one when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<String>,
    /// ICMP type, where a rule names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// ICMP code, where a rule names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// The instance's port that a published one leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner_port: Option<u16>,
    /// From where the security groups let packets in; empty when from nowhere.
    pub from: Vec<String>,
    /// Whether anybody gets in.
    pub open: bool,
}

/// Which exposure is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ExposedQuery {
    /// Of this project, by name or id; `*` for all projects (admin only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Of this instance alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}
