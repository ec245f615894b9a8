//! Refusals of `control` under the names that Neutron gives them: clients tell errors apart by these.

use crate::openstack::Fault;
use axum::http::StatusCode;
use control::Error;
use model::error::Code;

/// The resource that a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A network.
    Network,
    /// A subnet.
    Subnet,
    /// A port.
    Port,
    /// A router.
    Router,
    /// A floating IP.
    FloatingIp,
    /// A security group.
    SecurityGroup,
    /// A subnet pool.
    SubnetPool,
    /// An address scope.
    AddressScope,
}

impl About {
    /// The word in the types of errors.
    pub fn word(self) -> &'static str {
        match self {
            Self::Network => "Network",
            Self::Subnet => "Subnet",
            Self::Port => "Port",
            Self::Router => "Router",
            Self::FloatingIp => "FloatingIP",
            Self::SecurityGroup => "SecurityGroup",
            Self::SubnetPool => "SubnetPool",
            Self::AddressScope => "AddressScope",
        }
    }

    /// Nothing with this id that the caller may see.
    pub fn missing(self, id: &str) -> Fault {
        Fault::not_found(self.word(), id)
    }

    /// As [`kind_of`], with status and message of the error: to be given to `map_err`.
    pub fn refuse(self) -> impl Fn(Error) -> Fault {
        move |error| {
            let (kind, status) = kind_of(self, &error);
            let fault = Fault::from(error).kind(kind);
            match status {
                Some(status) => fault.with_status(status),
                None => fault,
            }
        }
    }
}

/// Neutron's type of an error, and its status where that is not the one for the code.
fn kind_of(about: About, error: &Error) -> (&'static str, Option<StatusCode>) {
    let field = error.field.as_deref().unwrap_or("");
    let bad = Some(StatusCode::BAD_REQUEST);
    let conflict = Some(StatusCode::CONFLICT);
    match (error.code, about, field) {
        (Code::NotFound, _, "network" | "external") => ("NetworkNotFound", None),
        (Code::NotFound, _, "subnet") => ("SubnetNotFound", None),
        (Code::NotFound, _, "port") => ("PortNotFound", None),
        (Code::NotFound, _, "security_groups" | "group") => ("SecurityGroupNotFound", None),
        (Code::NotFound, _, "subnet_pool") => ("SubnetPoolNotFound", None),
        (Code::NotFound, _, "scope") => ("AddressScopeNotFound", None),
        (Code::NotFound, _, _) => (not_found(about), None),
        (
            Code::Taken,
            About::Port | About::Router | About::FloatingIp,
            "address" | "addresses" | "subnet",
        ) => ("IpAddressAlreadyAllocated", None),
        (Code::Taken, _, "mac") => ("MacAddressInUse", None),
        (Code::Taken, About::SecurityGroup, _) => ("SecurityGroupRuleExists", None),
        (Code::Taken, About::Subnet, "gateway") => ("GatewayIpInUse", conflict),
        (Code::InUse, About::Network, _) => ("NetworkInUse", None),
        (Code::InUse, About::Subnet, "gateway") => ("GatewayIpInUse", None),
        (Code::InUse, About::Subnet, _) => ("SubnetInUse", None),
        (Code::InUse, About::Port, _) => ("PortInUse", None),
        (Code::InUse, About::Router, "port") => ("PortInUse", None),
        (Code::InUse, About::Router, "subnet") => ("RouterInterfaceInUseByRoute", None),
        (Code::InUse, About::Router, _) => ("RouterInUse", None),
        (Code::InUse, About::SecurityGroup, _) => ("SecurityGroupInUse", None),
        (Code::InUse, About::SubnetPool, _) => ("SubnetPoolDeleteError", bad),
        (Code::InUse, About::AddressScope, _) => ("AddressScopeInUse", None),
        (Code::Conflict, About::SecurityGroup, _) => ("SecurityGroupCannotRemoveDefault", None),
        // A router's subnets may not overlap: Neutron calls that a bad request.
        (Code::Conflict, About::Router, _) => ("HTTPBadRequest", bad),
        (Code::Conflict, About::SubnetPool, "ranges") => ("AddressScopePrefixConflict", bad),
        (Code::Conflict, About::SubnetPool, _) => ("InvalidInput", bad),
        (Code::NoCapacity, About::Subnet, "subnet_pool") => ("SubnetAllocationError", bad),
        (Code::NoCapacity, _, _) => ("IpAddressGenerationFailure", conflict),
        (Code::QuotaExceeded, About::Subnet, "subnet_pool") => ("SubnetPoolQuotaExceeded", None),
        (Code::QuotaExceeded, _, _) => ("OverQuota", None),
        (Code::Invalid, About::Router, "routes") => ("InvalidRoutes", None),
        (Code::Invalid | Code::TooLarge, _, _) => ("InvalidInput", bad),
        (Code::Forbidden, _, _) => ("PolicyNotAuthorized", None),
        _ => ("HTTPConflict", None),
    }
}

fn not_found(about: About) -> &'static str {
    match about {
        About::Network => "NetworkNotFound",
        About::Subnet => "SubnetNotFound",
        About::Port => "PortNotFound",
        About::Router => "RouterNotFound",
        About::FloatingIp => "FloatingIPNotFound",
        About::SecurityGroup => "SecurityGroupNotFound",
        About::SubnetPool => "SubnetPoolNotFound",
        About::AddressScope => "AddressScopeNotFound",
    }
}
