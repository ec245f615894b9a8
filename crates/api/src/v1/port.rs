//! Ports.

use super::{
    described::describe,
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::Served,
    types::{
        self, Head,
        list::ListQuery,
        port::{
            AddressPair, CreatePort, FixedIp, FixedIpRequest, Port as View, PortDevice, UpdatePort, UserNote,
        },
    },
};
use control::{
    Caller, Control,
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

impl Kept for Port {
    fn name_asked(new: &CreatePort) -> &str {
        new.name.as_deref().unwrap_or_default()
    }

    async fn make(control: &Control, caller: &Caller, new: CreatePort) -> control::Result<Self> {
        control::change::check_labels(&new.labels)?;
        let fixed: Vec<FixedAsked> = new.addresses.iter().map(fixed_asked).collect();
        let new = NewPort {
            name: new.name.unwrap_or_default(),
            description: new.description,
            labels: new.labels,
            network: new.network,
            fixed: (!fixed.is_empty()).then_some(fixed),
            mac: new.mac,
            security_groups: new.security_groups,
            port_security: new.port_security,
            allowed_pairs: pairs(&new.allowed_pairs),
            admin_up: new.admin_up.unwrap_or(true),
            rate_mbit: new.rate_mbit,
            foreign_user: new.foreign_user.as_ref().map(foreign_user),
            device_tag: None,
            aliases: new.aliases,
            spread: new.spread.as_ref().map(spread).transpose()?,
        };
        control.create_port(caller, new).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdatePort,
    ) -> control::Result<Self> {
        let asked = PortChange {
            fixed: change.addresses.as_ref().map(|all| all.iter().map(fixed_asked).collect()),
            security_groups: change.security_groups.clone(),
            mac: change.mac,
        };
        control.update_port(caller, reference, &asked, |port| apply(port, &change)).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_port(caller, id).await
    }
}

fn apply(port: &mut Port, change: &UpdatePort) -> control::Result<()> {
    describe(&mut port.meta, change.name.as_ref(), change.description.as_ref(), &change.labels)?;
    port.port_security = change.port_security.unwrap_or(port.port_security);
    port.admin_up = change.admin_up.unwrap_or(port.admin_up);
    port.rate_mbit = change.rate_mbit.unwrap_or(port.rate_mbit);
    if let Some(given) = &change.allowed_pairs {
        port.allowed_pairs = pairs(given);
    }
    if let Some(user) = &change.foreign_user {
        port.foreign_user = user.as_ref().map(foreign_user);
    }
    if let Some(aliases) = &change.aliases {
        port.aliases.clone_from(aliases);
    }
    if let Some(asked) = &change.spread {
        port.spread = asked.as_ref().map(spread).transpose()?;
    }
    Ok(())
}

/// Adds the routes of ports.
pub fn routes(routes: Routes) -> Routes {
    routes.kept::<Port>(
        Doc::new("Make a port").details("It keeps its MAC and addresses for life, whatever uses it."),
        Doc::new("Change a port").details("Takes effect at once, while its instance runs too."),
        Doc::new("Delete a port").details("Refused while something uses it."),
    )
}

fn pairs(given: &[AddressPair]) -> Vec<model::port::AddressPair> {
    given.iter().map(|pair| model::port::AddressPair { net: pair.net, mac: pair.mac }).collect()
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
