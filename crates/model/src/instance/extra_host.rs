//! Extra hosts: names that a pod's containers find in /etc/hosts, before they ask anybody.

use crate::port::alias::Alias;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Most extra hosts of one instance.
pub const EXTRA_HOSTS_MAX: usize = 128;

/// A name and the address that it stands for inside. A name may be there several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// Name.
    pub name: Alias,
    /// Address.
    pub address: IpAddr,
}
