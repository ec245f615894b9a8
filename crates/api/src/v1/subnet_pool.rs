//! Subnet pools.

use super::{
    described::describe,
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::Served,
    types::{
        Head,
        subnet_pool::{CreateSubnetPool, SubnetPool as View, UpdateSubnetPool},
    },
};
use control::{Caller, Control, subnet_pool::NewSubnetPool};
use model::{address_scope::AddressScope, subnet_pool::SubnetPool};

impl Served for SubnetPool {
    type View = View;

    fn view(&self, scene: &Scene<'_>) -> View {
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            ranges: self.ranges.clone(),
            default_prefix_len: self.default_prefix_len,
            min_prefix_len: self.min_prefix_len,
            max_prefix_len: self.max_prefix_len,
            quota: self.quota,
            scope: self.scope.map(|scope| scene.reference::<AddressScope>(scope)),
            shared: self.shared,
            is_default: self.is_default,
        }
    }
}

impl Kept for SubnetPool {
    fn name_asked(new: &CreateSubnetPool) -> &str {
        &new.name
    }

    async fn make(control: &Control, caller: &Caller, new: CreateSubnetPool) -> control::Result<Self> {
        let new = NewSubnetPool {
            name: new.name,
            description: new.description,
            labels: new.labels,
            ranges: new.ranges,
            min_prefix_len: new.min_prefix_len,
            default_prefix_len: new.default_prefix_len,
            max_prefix_len: new.max_prefix_len,
            quota: new.quota,
            scope: new.scope,
            shared: new.shared,
            is_default: new.is_default,
        };
        control.create_subnet_pool(caller, new).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateSubnetPool,
    ) -> control::Result<Self> {
        let scope = change.scope.as_ref().map(Option::as_deref);
        control.update_subnet_pool(caller, reference, scope, |pool| apply(pool, &change)).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_subnet_pool(caller, id).await
    }
}

/// Adds the routes of subnet pools.
pub fn routes(routes: Routes) -> Routes {
    routes.kept::<SubnetPool>(
        Doc::new("Make a subnet pool")
            .details("Subnets cut from it never overlap. Shared and default ones: admin only."),
        Doc::new("Change a subnet pool"),
        Doc::new("Delete a subnet pool").details("Refused while a subnet is cut from it."),
    )
}

fn apply(pool: &mut SubnetPool, input: &UpdateSubnetPool) -> control::Result<()> {
    describe(&mut pool.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)?;
    if let Some(ranges) = &input.ranges {
        pool.ranges.clone_from(ranges);
    }
    pool.default_prefix_len = input.default_prefix_len.unwrap_or(pool.default_prefix_len);
    pool.min_prefix_len = input.min_prefix_len.unwrap_or(pool.min_prefix_len);
    pool.max_prefix_len = input.max_prefix_len.unwrap_or(pool.max_prefix_len);
    pool.quota = input.quota.unwrap_or(pool.quota);
    pool.shared = input.shared.unwrap_or(pool.shared);
    pool.is_default = input.is_default.unwrap_or(pool.is_default);
    Ok(())
}
