//! Ports.

use super::{
    audit::{deed, note},
    described::{describe, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        self, Head,
        list::{ListQuery, WaitQuery},
        port::{
            AddressPair, CreatePort, FixedIp, FixedIpRequest, Port as View, PortDevice, UpdatePort, UserNote,
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
    Caller,
    port::{FixedAsked, NewPort, PortChange},
};
use model::{
    instance::Instance,
    network::Network,
    port::{
        Device, ForeignUser, Port,
        spread::{Spread, SpreadPort},
    },
    router::Router,
    security_group::{Protocol, SecurityGroup},
    subnet::Subnet,
};

impl Served for Port {
    type View = View;
    const FILTERS: &'static [&'static str] = &["network", "instance"];

    fn view(&self, scene: &Scene<'_>) -> View {
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            network: scene.reference::<Network>(self.network),
            mac: self.mac,
            addresses: self
                .addresses
                .iter()
                .map(|fixed| FixedIp {
                    subnet: scene.reference::<Subnet>(fixed.subnet),
                    address: fixed.address,
                })
                .collect(),
            device: device_view(self.device, scene),
            security_groups: self
                .security_groups
                .iter()
                .map(|group| scene.reference::<SecurityGroup>(*group))
                .collect(),
            port_security: self.port_security,
            allowed_pairs: self
                .allowed_pairs
                .iter()
                .map(|pair| AddressPair { net: pair.net, mac: pair.mac })
                .collect(),
            admin_up: self.admin_up,
            rate_mbit: self.rate_mbit,
            foreign_user: self
                .foreign_user
                .as_ref()
                .map(|user| UserNote { kind: user.kind.clone(), id: user.id.clone() }),
            floating_ips: scene.floating_of(self.meta.id),
            delete_with_instance: self.delete_with_instance,
            aliases: self.aliases.clone(),
            spread: self.spread.as_ref().map(Into::into),
        }
    }

    fn fits(&self, query: &ListQuery, scene: &Scene<'_>) -> control::Result<bool> {
        if let Some(network) = &query.network
            && scene.network_meant(network)? != self.network
        {
            return Ok(false);
        }
        let Some(instance) = &query.instance else {
            return Ok(true);
        };
        Ok(self.instance() == Some(scene.instance_meant(instance)?))
    }
}

fn device_view(device: Device, scene: &Scene<'_>) -> Option<PortDevice> {
    let (kind, reference) = match device {
        Device::None => return None,
        Device::Instance(id) => ("instance", Some(scene.reference::<Instance>(id))),
        Device::RouterInterface(id) => ("router_interface", Some(scene.reference::<Router>(id))),
        Device::RouterGateway(id) => ("router_gateway", Some(scene.reference::<Router>(id))),
        Device::FloatingIp => ("floating_ip", None),
    };
    Some(PortDevice {
        kind: kind.to_string(),
        id: reference.as_ref().map(|r| r.id),
        name: reference.map(|r| r.name).unwrap_or_default(),
    })
}

/// Adds the routes of ports.
pub fn routes(routes: Routes) -> Routes {
    let tag = "ports";
    routes
        .collection::<Port>()
        .add(
            Method::POST,
            "/v1/ports",
            tag,
            Doc::new("Make a port")
                .details("It keeps its MAC and addresses for life, whatever uses it.")
                .wait()
                .input::<CreatePort>()
                .answer::<View>(201, "Made."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/ports/{ref}",
            tag,
            Doc::new("Change a port")
                .details("Takes effect at once, while its instance runs too.")
                .wait()
                .input::<UpdatePort>()
                .answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/ports/{ref}",
            tag,
            Doc::new("Delete a port").details("Refused while something uses it.").wait().empty(204, "Gone."),
            delete,
        )
}

fn pairs(given: &[AddressPair]) -> Vec<model::port::AddressPair> {
    given.iter().map(|pair| model::port::AddressPair { net: pair.net, mac: pair.mac }).collect()
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreatePort>,
) -> Result<Response> {
    check_wait::<Port>(&wait)?;
    control::change::check_labels(&input.labels)?;
    let outcome = make(&app, &caller, &input).await;
    let name = input.name.clone().unwrap_or_default();
    let made = note(&app, &caller, deed("create", "port", &name), outcome).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

fn fixed_asked(asked: &FixedIpRequest) -> FixedAsked {
    FixedAsked { subnet: asked.subnet.clone(), address: asked.address }
}

fn foreign_user(given: &UserNote) -> ForeignUser {
    ForeignUser { kind: given.kind.clone(), id: given.id.clone() }
}

fn spread(asked: &types::port::Spread) -> control::Result<Spread> {
    let port = |it: &types::port::SpreadPort| {
        let protocol =
            it.protocol.parse::<Protocol>().map_err(|wrong| control::Error::invalid("spread", wrong))?;
        Ok::<_, control::Error>(SpreadPort { protocol, port: it.port, to: it.to })
    };
    Ok(Spread {
        over: asked.over.clone(),
        ports: asked.ports.iter().map(port).collect::<control::Result<_>>()?,
    })
}

async fn make(app: &App, caller: &Caller, input: &CreatePort) -> control::Result<Port> {
    let fixed: Vec<FixedAsked> = input.addresses.iter().map(fixed_asked).collect();
    let new = NewPort {
        name: input.name.clone().unwrap_or_default(),
        description: input.description.clone(),
        labels: input.labels.clone(),
        network: input.network.clone(),
        fixed: (!fixed.is_empty()).then_some(fixed),
        mac: input.mac,
        security_groups: input.security_groups.clone(),
        port_security: input.port_security,
        allowed_pairs: pairs(&input.allowed_pairs),
        admin_up: input.admin_up.unwrap_or(true),
        rate_mbit: input.rate_mbit,
        foreign_user: input.foreign_user.as_ref().map(foreign_user),
        device_tag: None,
        aliases: input.aliases.clone(),
        spread: input.spread.as_ref().map(spread).transpose()?,
    };
    app.control().create_port(caller, new).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdatePort>,
) -> Result<Response> {
    check_wait::<Port>(&wait)?;
    let outcome = apply(&app, &caller, &reference, &input).await;
    let changed = note(&app, &caller, deed("update", "port", &reference), outcome).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn apply(app: &App, caller: &Caller, reference: &str, input: &UpdatePort) -> control::Result<Port> {
    let change = PortChange {
        fixed: input.addresses.as_ref().map(|all| all.iter().map(fixed_asked).collect()),
        security_groups: input.security_groups.clone(),
        mac: input.mac,
    };
    let edit = |port: &mut Port| {
        describe(&mut port.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)?;
        port.port_security = input.port_security.unwrap_or(port.port_security);
        port.admin_up = input.admin_up.unwrap_or(port.admin_up);
        port.rate_mbit = input.rate_mbit.unwrap_or(port.rate_mbit);
        if let Some(given) = &input.allowed_pairs {
            port.allowed_pairs = pairs(given);
        }
        if let Some(user) = &input.foreign_user {
            port.foreign_user = user.as_ref().map(foreign_user);
        }
        if let Some(aliases) = &input.aliases {
            port.aliases.clone_from(aliases);
        }
        if let Some(asked) = &input.spread {
            port.spread = asked.as_ref().map(spread).transpose()?;
        }
        Ok(())
    };
    app.control().update_port(caller, reference, &change, edit).await
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_port(&asker.0, id).await;
    remove::<Port>(&app, &asker, &reference, &wait, act).await
}
