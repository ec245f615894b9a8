//! Address scopes: spaces in which addresses are unique. Subnet pools of one scope never share an address.

use crate::{id::AddressScopeId, meta::Meta, record::Record};
use serde::{Deserialize, Serialize};

/// Most scopes of one project.
pub const SCOPES_MAX: u64 = 20;

/// A space in which addresses of one family are unique.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddressScope {
    /// Head.
    pub meta: Meta<AddressScopeId>,
    /// Addresses of IPv4, else of IPv6.
    pub ipv4: bool,
    /// Other projects may use it.
    #[serde(default)]
    pub shared: bool,
}

impl Record for AddressScope {
    const TABLE: &'static str = "address_scope";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}
