//! Address scopes.

use crate::{Caller, Control, Error, Result, Role};
use model::{
    address_scope::{AddressScope, SCOPES_MAX},
    error::Code,
    id::AddressScopeId,
    meta::Labels,
    meta::Meta,
    subnet_pool::SubnetPool,
};

/// An address scope to be made.
#[derive(Debug, Clone, Default)]
pub struct NewAddressScope {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// Of IPv4 addresses, else IPv6.
    pub ipv4: bool,
    /// Other projects may use it (admins).
    pub shared: bool,
}

impl Control {
    /// Makes an address scope.
    ///
    /// # Errors
    /// `invalid`, `taken`, `forbidden` for shared ones.
    pub async fn create_address_scope(&self, caller: &Caller, new: NewAddressScope) -> Result<AddressScope> {
        caller.require(Role::Member, "creating an address scope")?;
        if new.shared {
            caller.require(Role::Admin, "creating a shared address scope")?;
        }
        let id = AddressScopeId::from_random(rand::random());
        let name = self.name_asked(&new.name, "scope", &id.short())?;
        let mut meta = Meta::new(id, caller.project, name, self.now());
        meta.description.clone_from(&new.description);
        meta.labels.clone_from(&new.labels);
        let scope = AddressScope { meta, ipv4: new.ipv4, shared: new.shared };
        self.transact(|tx| {
            self.count_one_more::<AddressScope>(tx, caller, SCOPES_MAX)?;
            tx.create(&scope);
            Ok(scope.clone())
        })
        .await
    }

    /// Removes an address scope that no subnet pool is in.
    ///
    /// # Errors
    /// `in_use`, `not_found`, `forbidden`.
    pub async fn delete_address_scope(&self, caller: &Caller, reference: &str) -> Result<()> {
        self.transact(|tx| {
            let found = self.find_own::<AddressScope>(caller, reference, "deleting an address scope")?;
            let id = found.record.meta.id;
            let pools = self.store.list::<SubnetPool>();
            if let Some(pool) = pools.iter().find(|p| p.record.scope == Some(id)) {
                let message = format!(
                    "address scope {} has subnet pool {}",
                    found.record.meta.name, pool.record.meta.name
                );
                return Err(Error::new(Code::InUse, message).hint("take the pool out of the scope first"));
            }
            self.count_one_less::<AddressScope>(tx, found.record.meta.project);
            tx.delete(&found);
            Ok(())
        })
        .await
    }
}
