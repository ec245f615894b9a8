//! Networks.

use super::{
    audit::{deed, note},
    described::{describe, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Head,
        list::{ListQuery, WaitQuery},
        network::{
            CreateNetwork, External as ExternalView, Network as View, NetworkKind as Kind, NetworkSubnet,
            UpdateNetwork,
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
    Error,
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

/// Adds the routes of networks.
pub fn routes(routes: Routes) -> Routes {
    let tag = "networks";
    routes
        .collection::<Network>()
        .add(
            Method::POST,
            "/v1/networks",
            tag,
            Doc::new("Make a network")
                .details("It has no subnets at first. External and shared ones: admin only.")
                .wait()
                .input::<CreateNetwork>()
                .answer::<View>(201, "Made."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/networks/{ref}",
            tag,
            Doc::new("Change a network").wait().input::<UpdateNetwork>().answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/networks/{ref}",
            tag,
            Doc::new("Delete a network")
                .details("Its subnets go along. Refused while instances have ports in it.")
                .wait()
                .empty(204, "Gone."),
            delete,
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

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateNetwork>,
) -> Result<Response> {
    check_wait::<Network>(&wait)?;
    control::change::check_labels(&input.labels)?;
    let make = async {
        let new = NewNetwork {
            description: input.description.clone(),
            mtu: input.mtu,
            shared: input.shared,
            port_security: input.port_security.unwrap_or(true),
            dns_domain: input.dns_domain.clone(),
            labels: input.labels.clone(),
            admin_up: input.admin_up.unwrap_or(true),
            ..NewNetwork::of_kind(&input.name, kind_asked(&input)?)
        };
        app.control().create_network(&caller, new).await
    };
    let made = note(&app, &caller, deed("create", "network", &input.name), make.await).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateNetwork>,
) -> Result<Response> {
    check_wait::<Network>(&wait)?;
    let act = app.control().update_network(&caller, &reference, |network| apply(network, &input));
    let changed = note(&app, &caller, deed("update", "network", &reference), act.await).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
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

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_network(&asker.0, id, Joined::Remove).await;
    remove::<Network>(&app, &asker, &reference, &wait, act).await
}
