//! Subnet pools.

use super::{
    audit::{deed, note},
    described::{describe, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Head,
        list::WaitQuery,
        subnet_pool::{CreateSubnetPool, SubnetPool as View, UpdateSubnetPool},
    },
};
use crate::{
    app::{App, Asker},
    error::Result,
    request::{Input, Params},
};
use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::subnet_pool::NewSubnetPool;
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

/// Adds the routes of subnet pools.
pub fn routes(routes: Routes) -> Routes {
    let tag = "subnet_pools";
    routes
        .collection::<SubnetPool>()
        .add(
            Method::POST,
            "/v1/subnet_pools",
            tag,
            Doc::new("Make a subnet pool")
                .details("Subnets cut from it never overlap. Shared and default ones: admin only.")
                .wait()
                .input::<CreateSubnetPool>()
                .answer::<View>(201, "Made."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/subnet_pools/{ref}",
            tag,
            Doc::new("Change a subnet pool")
                .wait()
                .input::<UpdateSubnetPool>()
                .answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/subnet_pools/{ref}",
            tag,
            Doc::new("Delete a subnet pool")
                .details("Refused while a subnet is cut from it.")
                .wait()
                .empty(204, "Gone."),
            delete,
        )
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateSubnetPool>,
) -> Result<Response> {
    check_wait::<SubnetPool>(&wait)?;
    let new = NewSubnetPool {
        name: input.name.clone(),
        description: input.description.clone(),
        labels: input.labels.clone(),
        ranges: input.ranges.clone(),
        min_prefix_len: input.min_prefix_len,
        default_prefix_len: input.default_prefix_len,
        max_prefix_len: input.max_prefix_len,
        quota: input.quota,
        scope: input.scope.clone(),
        shared: input.shared,
        is_default: input.is_default,
    };
    let made = app.control().create_subnet_pool(&caller, new).await;
    let made = note(&app, &caller, deed("create", "subnet_pool", &input.name), made).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateSubnetPool>,
) -> Result<Response> {
    check_wait::<SubnetPool>(&wait)?;
    let scope = input.scope.as_ref().map(Option::as_deref);
    let edit = |pool: &mut SubnetPool| apply(pool, &input);
    let changed = app.control().update_subnet_pool(&caller, &reference, scope, edit).await;
    let changed = note(&app, &caller, deed("update", "subnet_pool", &reference), changed).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
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

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_subnet_pool(&asker.0, id).await;
    remove::<SubnetPool>(&app, &asker, &reference, &wait, act).await
}
