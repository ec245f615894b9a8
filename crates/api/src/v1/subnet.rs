//! Subnets.

use super::{
    described::describe,
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::Served,
    types::{
        Head,
        list::ListQuery,
        subnet::{CreateSubnet, Pool, Route, Subnet as View, UpdateSubnet},
    },
};
use control::{Caller, Control, network::Joined, subnet::NewSubnet, subnet_pool::PoolAsked};
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

impl Kept for Subnet {
    fn name_asked(new: &CreateSubnet) -> &str {
        &new.name
    }

    async fn make(control: &Control, caller: &Caller, new: CreateSubnet) -> control::Result<Self> {
        control::change::check_labels(&new.labels)?;
        let (gateway, router) = (new.gateway, new.router);
        let new = NewSubnet {
            name: new.name,
            description: new.description,
            labels: new.labels,
            network: new.network,
            cidr: new.cidr.map(|cidr| cidr.to_string()).unwrap_or_default(),
            pool: new.subnet_pool.map(|pool| PoolAsked {
                pool: Some(pool),
                ipv6: false,
                prefix_len: new.prefix_len,
            }),
            gateway: gateway.flatten(),
            no_gateway: gateway == Some(None),
            dhcp: new.dhcp.unwrap_or(true),
            dns_servers: new.dns_servers,
            pools: ranges(&new.pools),
            host_routes: host_routes(&new.host_routes),
            ipv6_mode: new.ipv6_mode,
            no_ipv6_mode: false,
            ipv6_part: new.ipv6_part.unwrap_or_default(),
            security_groups: new.security_groups,
            no_router: router == Some(None),
            router: router.flatten(),
        };
        control.create_subnet(caller, new).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateSubnet,
    ) -> control::Result<Self> {
        let groups = change.security_groups.as_deref();
        control.update_subnet(caller, reference, groups, |subnet| apply(subnet, &change)).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_subnet(caller, id, Joined::Remove).await
    }
}

/// Adds the routes of subnets.
pub fn routes(routes: Routes) -> Routes {
    routes.kept::<Subnet>(
        Doc::new("Make a subnet")
            .details("The project's router named `default` joins it, unless told otherwise."),
        Doc::new("Change a subnet"),
        Doc::new("Delete a subnet").details("Refused while an instance has an address of it."),
    )
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
