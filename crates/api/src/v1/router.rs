//! Routers.

use super::{
    audit::{deed, note},
    described::{describe, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
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
    request::{Input, Params},
};
use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::{
    Caller, Error,
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

/// Adds the routes of routers.
pub fn routes(routes: Routes) -> Routes {
    let tag = "routers";
    routes
        .collection::<Router>()
        .add(
            Method::POST,
            "/v1/routers",
            tag,
            Doc::new("Make a router").wait().input::<CreateRouter>().answer::<View>(201, "Made."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/routers/{ref}",
            tag,
            Doc::new("Change a router")
                .details("`gateway: null` closes the way out.")
                .wait()
                .input::<UpdateRouter>()
                .answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/routers/{ref}",
            tag,
            Doc::new("Delete a router").details("Refused while it joins subnets.").wait().empty(204, "Gone."),
            delete,
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

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateRouter>,
) -> Result<Response> {
    check_wait::<Router>(&wait)?;
    control::change::check_labels(&input.labels)?;
    let new = NewRouter {
        name: input.name.clone(),
        description: input.description.clone(),
        labels: input.labels.clone(),
        gateway: input.gateway.as_ref().map(gateway_asked),
        interfaces: input.interfaces.clone(),
        routes: host_routes(&input.routes),
        admin_up: input.admin_up.unwrap_or(true),
    };
    let outcome = app.control().create_router(&caller, &new).await;
    let made = note(&app, &caller, deed("create", "router", &input.name), outcome).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateRouter>,
) -> Result<Response> {
    check_wait::<Router>(&wait)?;
    let outcome = apply(&app, &caller, &reference, &input).await;
    let changed = note(&app, &caller, deed("update", "router", &reference), outcome).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn apply(app: &App, caller: &Caller, reference: &str, input: &UpdateRouter) -> control::Result<Router> {
    let change = RouterChange {
        gateway: input.gateway.as_ref().map(|gateway| gateway.as_ref().map(gateway_asked)),
        routes: input.routes.as_deref().map(host_routes),
    };
    let edit = |router: &mut Router| {
        describe(&mut router.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)?;
        router.admin_up = input.admin_up.unwrap_or(router.admin_up);
        Ok(())
    };
    app.control().update_router(caller, reference, &change, edit).await
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_router(&asker.0, id, false).await;
    remove::<Router>(&app, &asker, &reference, &wait, act).await
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
