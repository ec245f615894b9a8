//! Subnets.

use super::{
    audit::{deed, note},
    described::{describe, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Head,
        list::{ListQuery, WaitQuery},
        subnet::{CreateSubnet, Pool, Route, Subnet as View, UpdateSubnet},
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
use control::{network::Joined, subnet::NewSubnet, subnet_pool::PoolAsked};
use model::{
    address::AddressRange,
    network::Network,
    security_group::SecurityGroup,
    subnet::{HostRoute, Subnet},
    subnet_pool::SubnetPool,
};

impl Served for Subnet {
    type View = View;
    const FILTERS: &'static [&'static str] = &["network"];

    fn view(&self, scene: &Scene<'_>) -> View {
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            network: scene.reference::<Network>(self.network),
            cidr: self.cidr,
            gateway: self.gateway,
            dhcp: self.dhcp,
            dns_servers: self.dns_servers.clone(),
            pools: self.pools.iter().map(|p| Pool { start: p.start, end: p.end }).collect(),
            host_routes: self.host_routes.iter().map(route_view).collect(),
            ipv6_mode: self.ipv6_mode,
            ipv6_part: self.ipv6_part,
            security_groups: self
                .security_groups
                .iter()
                .map(|group| scene.reference::<SecurityGroup>(*group))
                .collect(),
            subnet_pool: self.subnet_pool.map(|pool| scene.reference::<SubnetPool>(pool)),
        }
    }

    fn fits(&self, query: &ListQuery, scene: &Scene<'_>) -> control::Result<bool> {
        let Some(network) = &query.network else {
            return Ok(true);
        };
        Ok(scene.network_meant(network)? == self.network)
    }
}

/// A route as clients see it.
pub fn route_view(route: &HostRoute) -> Route {
    Route { destination: route.destination, next_hop: route.next_hop }
}

/// Routes as they are kept.
pub fn host_routes(routes: &[Route]) -> Vec<HostRoute> {
    let keep = |route: &Route| HostRoute { destination: route.destination, next_hop: route.next_hop };
    routes.iter().map(keep).collect()
}

fn ranges(pools: &[Pool]) -> Vec<AddressRange> {
    pools.iter().map(|p| AddressRange { start: p.start, end: p.end }).collect()
}

/// Adds the routes of subnets.
pub fn routes(routes: Routes) -> Routes {
    let tag = "subnets";
    routes
        .collection::<Subnet>()
        .add(
            Method::POST,
            "/v1/subnets",
            tag,
            Doc::new("Make a subnet")
                .details("The project's router named `default` joins it, unless told otherwise.")
                .wait()
                .input::<CreateSubnet>()
                .answer::<View>(201, "Made."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/subnets/{ref}",
            tag,
            Doc::new("Change a subnet").wait().input::<UpdateSubnet>().answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/subnets/{ref}",
            tag,
            Doc::new("Delete a subnet")
                .details("Refused while an instance has an address of it.")
                .wait()
                .empty(204, "Gone."),
            delete,
        )
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateSubnet>,
) -> Result<Response> {
    check_wait::<Subnet>(&wait)?;
    control::change::check_labels(&input.labels)?;
    let new = NewSubnet {
        name: input.name.clone(),
        description: input.description.clone(),
        labels: input.labels.clone(),
        network: input.network.clone(),
        cidr: input.cidr.map(|cidr| cidr.to_string()).unwrap_or_default(),
        pool: input.subnet_pool.as_ref().map(|pool| PoolAsked {
            pool: Some(pool.clone()),
            ipv6: false,
            prefix_len: input.prefix_len,
        }),
        gateway: input.gateway.flatten(),
        no_gateway: input.gateway == Some(None),
        dhcp: input.dhcp.unwrap_or(true),
        dns_servers: input.dns_servers.clone(),
        pools: ranges(&input.pools),
        host_routes: host_routes(&input.host_routes),
        ipv6_mode: input.ipv6_mode,
        no_ipv6_mode: false,
        ipv6_part: input.ipv6_part.unwrap_or_default(),
        security_groups: input.security_groups.clone(),
        router: input.router.clone().flatten(),
        no_router: input.router == Some(None),
    };
    let make = app.control().create_subnet(&caller, new);
    let made = note(&app, &caller, deed("create", "subnet", &input.name), make.await).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateSubnet>,
) -> Result<Response> {
    check_wait::<Subnet>(&wait)?;
    let groups = input.security_groups.as_deref();
    let act = app.control().update_subnet(&caller, &reference, groups, |subnet| apply(subnet, &input));
    let changed = note(&app, &caller, deed("update", "subnet", &reference), act.await).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

fn apply(subnet: &mut Subnet, input: &UpdateSubnet) -> control::Result<()> {
    describe(&mut subnet.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)?;
    subnet.gateway = input.gateway.unwrap_or(subnet.gateway);
    subnet.dhcp = input.dhcp.unwrap_or(subnet.dhcp);
    if let Some(servers) = &input.dns_servers {
        subnet.dns_servers.clone_from(servers);
    }
    if let Some(pools) = &input.pools {
        subnet.pools = ranges(pools);
    }
    if let Some(routes) = &input.host_routes {
        subnet.host_routes = host_routes(routes);
    }
    Ok(())
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_subnet(&asker.0, id, Joined::Remove).await;
    remove::<Subnet>(&app, &asker, &reference, &wait, act).await
}
