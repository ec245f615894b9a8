//! Identities: one newtype over a UUID for each noun, so that a port's id can never be passed for a network's.
//!
//! Ids are plain UUIDs on every door (native, OpenStack, Docker uses the hex digits without dashes).

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// A text that is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id (a UUID like 6f1c…, 36 characters, was expected)")]
pub struct IdError(pub String);

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Makes an id from 16 random bytes (UUID version 4).
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }
            /// The first eight hex digits: short enough for names of kernel devices and for people.
            pub fn short(&self) -> String {
                self.0.simple().to_string()[..8].to_string()
            }
            /// The 32 hex digits without dashes.
            pub fn hex(&self) -> String {
                self.0.simple().to_string()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.hyphenated(), f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl From<$name> for Uuid {
            fn from(id: $name) -> Uuid {
                id.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::parse_str(text).map(Self).map_err(|_| IdError(text.to_string()))
            }
        }
    )*};
}

ids! {
    /// A project: the tenant that owns things and whose quota counts.
    ProjectId,
    /// A virtual machine, a pod or a system container.
    InstanceId,
    /// A private network (VPC).
    NetworkId,
    /// A range of addresses in a network.
    SubnetId,
    /// A range that subnets are cut from.
    SubnetPoolId,
    /// A space in which addresses are unique.
    AddressScopeId,
    /// A place where an instance meets a network.
    PortId,
    /// A virtual router.
    RouterId,
    /// A security group.
    SecurityGroupId,
    /// One rule of a security group.
    RuleId,
    /// A floating IP.
    FloatingIpId,
    /// An image.
    ImageId,
    /// A flavor.
    FlavorId,
    /// An SSH public key.
    KeypairId,
    /// A server group.
    ServerGroupId,
    /// So many copies of an instance.
    DeploymentId,
    /// A volume.
    VolumeId,
    /// A snapshot of a volume.
    SnapshotId,
    /// An admin's name for a way of keeping volumes.
    VolumeTypeId,
    /// An offer of a volume to another project.
    TransferId,
    /// A host.
    NodeId,
    /// A long-running action that a user asked for.
    OperationId,
    /// Something that happened.
    EventId,
    /// Someone who logs in.
    UserId,
    /// Users that are given roles together.
    GroupId,
    /// What one may do.
    RoleId,
    /// A domain: a name space of users and projects.
    DomainId,
    /// A secret that acts for a user in one project.
    ApplicationCredentialId,
}

impl DomainId {
    /// The domain that every cloud has.
    pub const DEFAULT: Self = Self(Uuid::nil());
}

impl Default for DomainId {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_shortens() {
        let id = InstanceId::from_random([7; 16]);
        assert_eq!(id.to_string().parse::<InstanceId>().unwrap(), id);
        assert_eq!(id.short().len(), 8);
        assert!("web".parse::<InstanceId>().is_err());
    }
}
