//! Address scopes.

use super::{
    described::describe,
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::Served,
    types::{
        Head,
        subnet_pool::{AddressScope as View, CreateAddressScope, UpdateAddressScope},
    },
};
use control::{Caller, Control, Error, address_scope::NewAddressScope};
use model::address_scope::AddressScope;

impl Served for AddressScope {
    type View = View;

    fn view(&self, scene: &Scene<'_>) -> View {
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            family: if self.ipv4 { 4 } else { 6 },
            shared: self.shared,
        }
    }
}

impl Kept for AddressScope {
    fn name_asked(new: &CreateAddressScope) -> &str {
        &new.name
    }

    async fn make(control: &Control, caller: &Caller, new: CreateAddressScope) -> control::Result<Self> {
        let CreateAddressScope { name, description, labels, family, shared } = new;
        if !matches!(family, 4 | 6) {
            return Err(Error::invalid("family", "an address family is 4 or 6"));
        }
        let new = NewAddressScope { name, description, labels, ipv4: family == 4, shared };
        control.create_address_scope(caller, new).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateAddressScope,
    ) -> control::Result<Self> {
        let edit = |scope: &mut Self| {
            describe(&mut scope.meta, change.name.as_ref(), change.description.as_ref(), &change.labels)
        };
        control.change(caller, reference, edit).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_address_scope(caller, id).await
    }
}

/// Adds the routes of address scopes.
pub fn routes(routes: Routes) -> Routes {
    routes.kept::<AddressScope>(
        Doc::new("Make an address scope")
            .details("Subnet pools of one scope never share an address. Shared ones: admin only."),
        Doc::new("Change an address scope"),
        Doc::new("Delete an address scope").details("Refused while a subnet pool is in it."),
    )
}
