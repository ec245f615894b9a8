//! Routers.

use super::{
    audit::{deed, note},
    described::describe,
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer},
    subnet::{host_routes, route_view},
    types::{
        Head,
        list::WaitQuery,
        router::{
            AddInterface, CreateRouter, Gateway, GatewayRequest, Interface, Router as View, UpdateRouter,
        },
    },
};
use crate::{
    app::{App, Asker},
    error::Result,
    request::Input,
};
use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::{
    Caller, Control, Error,
    port::FixedAsked,
    router::{GatewayAsked, InterfaceAsked, NewRouter, RouterChange},
};
use model::{id::PortId, network::Network, port::Port, router::Router, subnet::Subnet};
use std::net::IpAddr;

impl Served for Router {
    type View = View;

    fn view(&self, scene: &Scene<'_>) -> View {
        let addresses = |port: PortId| -> Vec<IpAddr> {
            let port = scene.control.get::<Port>(port);
            port.map(|p| p.record.addresses.iter().map(|a| a.address).collect()).unwrap_or_default()
        };
        let interface = |i: &model::router::Interface| {
            let cidr = scene.control.get::<Subnet>(i.subnet)?.record.cidr;
            Some(Interface {
                subnet: scene.reference::<Subnet>(i.subnet),
                network: scene.reference::<Network>(i.network),
                cidr,
                addresses: addresses(i.port),
            })
        };
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            gateway: self.gateway.map(|gateway| Gateway {
                network: scene.reference::<Network>(gateway.network),
                addresses: addresses(gateway.port),
                snat: gateway.snat,
            }),
            interfaces: self.interfaces.iter().filter_map(interface).collect(),
            routes: self.routes.iter().map(route_view).collect(),
            admin_up: self.admin_up,
        }
    }
}

impl Kept for Router {
    fn name_asked(new: &CreateRouter) -> &str {
        &new.name
    }

    async fn make(control: &Control, caller: &Caller, new: CreateRouter) -> control::Result<Self> {
        control::change::check_labels(&new.labels)?;
        let new = NewRouter {
            name: new.name,
            description: new.description,
            labels: new.labels,
            gateway: new.gateway.as_ref().map(gateway_asked),
            interfaces: new.interfaces,
            routes: host_routes(&new.routes),
            admin_up: new.admin_up.unwrap_or(true),
        };
        control.create_router(caller, &new).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateRouter,
    ) -> control::Result<Self> {
        let asked = RouterChange {
            gateway: change.gateway.as_ref().map(|gateway| gateway.as_ref().map(gateway_asked)),
            routes: change.routes.as_deref().map(host_routes),
        };
        let edit = |router: &mut Self| {
            describe(&mut router.meta, change.name.as_ref(), change.description.as_ref(), &change.labels)?;
            router.admin_up = change.admin_up.unwrap_or(router.admin_up);
            Ok(())
        };
        control.update_router(caller, reference, &asked, edit).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_router(caller, id, false).await
    }
}

/// Adds the routes of routers.
pub fn routes(routes: Routes) -> Routes {
    let tag = "routers";
    routes
        .kept::<Router>(
            Doc::new("Make a router"),
            Doc::new("Change a router").details("`gateway: null` closes the way out."),
            Doc::new("Delete a router").details("Refused while it joins subnets."),
        )
        .add(
            Method::POST,
            "/v1/routers/{ref}/interfaces",
            tag,
            Doc::new("Join a subnet").input::<AddInterface>().answer::<View>(200, "The router."),
            add_interface,
        )
        .add(
            Method::DELETE,
            "/v1/routers/{ref}/interfaces/{subnet}",
            tag,
            Doc::new("Take a subnet off").answer::<View>(200, "The router."),
            remove_interface,
        )
}

fn gateway_asked(asked: &GatewayRequest) -> GatewayAsked {
    let fixed = asked.addresses.iter().map(|address| FixedAsked { subnet: None, address: Some(*address) });
    let fixed: Vec<FixedAsked> = fixed.collect();
    GatewayAsked {
        network: asked.network.clone(),
        snat: Some(asked.snat.unwrap_or(true)),
        fixed: (!fixed.is_empty()).then_some(fixed),
    }
}

fn interface_asked(input: &AddInterface) -> control::Result<InterfaceAsked> {
    match (&input.subnet, &input.port) {
        (Some(subnet), None) => Ok(InterfaceAsked::Subnet(subnet.clone())),
        (None, Some(port)) => Ok(InterfaceAsked::Port(port.clone())),
        _ => Err(Error::invalid("subnet", "a router joins a subnet or a port, one of them")),
    }
}

async fn add_interface(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Input(input): Input<AddInterface>,
) -> Result<Response> {
    let outcome = match interface_asked(&input) {
        Ok(asked) => app.control().add_router_interface(&caller, &reference, &asked).await,
        Err(error) => Err(error),
    };
    let router = note(&app, &caller, deed("add_interface", "router", &reference), outcome).await?;
    answer(&app, &caller, StatusCode::OK, &router, &WaitQuery::default()).await
}

async fn remove_interface(
    State(app): State<App>,
    Asker(caller): Asker,
    Path((reference, subnet)): Path<(String, String)>,
) -> Result<Response> {
    let asked = InterfaceAsked::Subnet(subnet);
    let outcome = app.control().remove_router_interface(&caller, &reference, &asked).await;
    let outcome = outcome.map(|(router, _)| router);
    let router = note(&app, &caller, deed("remove_interface", "router", &reference), outcome).await?;
    answer(&app, &caller, StatusCode::OK, &router, &WaitQuery::default()).await
}
