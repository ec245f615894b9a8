//! Networks.

use super::{
    described::describe,
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::Served,
    types::{
        Head,
        list::ListQuery,
        network::{
            CreateNetwork, External as ExternalView, Network as View, NetworkKind as Kind, NetworkSubnet,
            UpdateNetwork,
        },
    },
};
use control::{
    Caller, Control, Error,
    network::{Joined, NewNetwork},
};
use model::network::{External, Network, NetworkKind};

impl Served for Network {
    type View = View;
    const FILTERS: &'static [&'static str] = &["kind"];

    fn view(&self, scene: &Scene<'_>) -> View {
        let subnets = scene.control.subnets_of(self.meta.id);
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            kind: kind_of(&self.kind),
            mtu: self.mtu,
            shared: self.shared,
            port_security: self.port_security,
            dns_domain: self.dns_domain.clone(),
            admin_up: self.admin_up,
            external: self.external().map(|external| ExternalView {
                interface: external.interface.clone(),
                masquerade: external.masquerade,
                is_default: external.is_default,
            }),
            subnets: subnets
                .iter()
                .map(|subnet| NetworkSubnet {
                    id: subnet.record.meta.id.0,
                    name: subnet.record.meta.name.to_string(),
                    cidr: subnet.record.cidr,
                })
                .collect(),
        }
    }

    fn fits(&self, query: &ListQuery, _scene: &Scene<'_>) -> control::Result<bool> {
        let own = kind_of(&self.kind).as_str();
        Ok(query.kind.as_ref().is_none_or(|kind| kind.replace('-', "_") == own))
    }
}

fn kind_of(kind: &NetworkKind) -> Kind {
    match kind {
        NetworkKind::Private => Kind::Private,
        NetworkKind::HostOnly => Kind::HostOnly,
        NetworkKind::External(_) => Kind::External,
    }
}

impl Kept for Network {
    fn name_asked(new: &CreateNetwork) -> &str {
        &new.name
    }

    async fn make(control: &Control, caller: &Caller, new: CreateNetwork) -> control::Result<Self> {
        control::change::check_labels(&new.labels)?;
        let kind = kind_asked(&new)?;
        let new = NewNetwork {
            description: new.description,
            mtu: new.mtu,
            shared: new.shared,
            port_security: new.port_security.unwrap_or(true),
            dns_domain: new.dns_domain,
            labels: new.labels,
            admin_up: new.admin_up.unwrap_or(true),
            ..NewNetwork::of_kind(&new.name, kind)
        };
        control.create_network(caller, new).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateNetwork,
    ) -> control::Result<Self> {
        control.update_network(caller, reference, |network| apply(network, &change)).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_network(caller, id, Joined::Remove).await
    }
}

/// Adds the routes of networks.
pub fn routes(routes: Routes) -> Routes {
    routes.kept::<Network>(
        Doc::new("Make a network")
            .details("It has no subnets at first. External and shared ones: admin only."),
        Doc::new("Change a network"),
        Doc::new("Delete a network")
            .details("Its subnets go along. Refused while instances have ports in it."),
    )
}

fn kind_asked(input: &CreateNetwork) -> control::Result<NetworkKind> {
    match (input.kind, &input.external) {
        (Kind::External, external) => {
            let external = external.clone().unwrap_or_default();
            Ok(NetworkKind::External(External {
                interface: external.interface,
                masquerade: external.masquerade,
                is_default: external.is_default,
            }))
        }
        (_, Some(_)) => Err(Error::invalid("external", "only a network of kind external has this")),
        (Kind::Private, None) => Ok(NetworkKind::Private),
        (Kind::HostOnly, None) => Ok(NetworkKind::HostOnly),
    }
}

fn apply(network: &mut Network, input: &UpdateNetwork) -> control::Result<()> {
    describe(&mut network.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)?;
    network.mtu = input.mtu.unwrap_or(network.mtu);
    network.shared = input.shared.unwrap_or(network.shared);
    network.port_security = input.port_security.unwrap_or(network.port_security);
    network.admin_up = input.admin_up.unwrap_or(network.admin_up);
    if let Some(domain) = &input.dns_domain {
        domain.trim_matches('.').clone_into(&mut network.dns_domain);
    }
    Ok(())
}
