//! Floating IPs.

use super::{
    audit::{deed, note},
    described::{describe, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Head,
        floating_ip::{CreateFloatingIp, FloatingIp as View, Target, TargetRequest, UpdateFloatingIp},
        list::{ListQuery, WaitQuery},
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
    Caller, Control, Error,
    floating_ip::{NewFloatingIp, TargetAsked},
};
use model::{
    floating_ip::FloatingIp, instance::Instance, network::Network, port::Port, router::Router,
    security_group::Family,
};
use std::{net::IpAddr, sync::Arc};
use store::Stored;

impl Served for FloatingIp {
    type View = View;
    const FILTERS: &'static [&'static str] = &["network", "instance"];

    fn view(&self, scene: &Scene<'_>) -> View {
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            network: scene.reference::<Network>(self.network),
            address: self.address,
            target: self.target.map(|target| Target {
                instance: instance_of(self, scene).map(|id| scene.reference::<Instance>(id)),
                port: scene.reference::<Port>(target.port),
                address: target.address,
                router: scene.reference::<Router>(target.router),
            }),
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
        Ok(instance_of(self, scene) == Some(scene.instance_meant(instance)?))
    }

    fn find(control: &Control, caller: &Caller, reference: &str) -> control::Result<Arc<Stored<Self>>> {
        if let Ok(address) = reference.parse::<IpAddr>() {
            let all = control.list::<Self>(caller);
            if let Some(found) = all.into_iter().find(|floating| floating.record.address == address) {
                return Ok(found);
            }
        }
        control.find::<Self>(caller, reference)
    }
}

fn instance_of(floating: &FloatingIp, scene: &Scene<'_>) -> Option<model::id::InstanceId> {
    let port = scene.control.get::<Port>(floating.target?.port)?;
    port.record.instance()
}

/// Adds the routes of floating IPs.
pub fn routes(routes: Routes) -> Routes {
    let tag = "floating_ips";
    routes
        .collection::<FloatingIp>()
        .add(
            Method::POST,
            "/v1/floating_ips",
            tag,
            Doc::new("Take a floating IP").wait().input::<CreateFloatingIp>().answer::<View>(201, "Taken."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/floating_ips/{ref}",
            tag,
            Doc::new("Attach, move or detach a floating IP")
                .details("Takes effect at once, while the instances run. `target: null` detaches. May be named by its address.")
                .wait().input::<UpdateFloatingIp>().answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/floating_ips/{ref}",
            tag,
            Doc::new("Give a floating IP back").wait().empty(204, "Gone."),
            delete,
        )
}

fn target_asked(input: &TargetRequest) -> control::Result<TargetAsked> {
    match (&input.instance, &input.port) {
        (Some(instance), None) if input.address.is_none() => Ok(TargetAsked::Instance(instance.clone())),
        (Some(_), None) => {
            Err(Error::invalid("target.address", "an address goes with a port, not an instance")
                .hint("name the instance's port"))
        }
        (None, Some(port)) => Ok(TargetAsked::Port(port.clone(), input.address)),
        (Some(_), Some(_)) => Err(Error::invalid("target", "a target is an instance or a port, not both")),
        (None, None) => {
            Err(Error::invalid("target", "a target is an instance or a port").hint("use null to detach"))
        }
    }
}

fn family(number: u8) -> control::Result<Family> {
    match number {
        4 => Ok(Family::Ipv4),
        6 => Ok(Family::Ipv6),
        _ => Err(Error::invalid("family", "an address family is 4 or 6")),
    }
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateFloatingIp>,
) -> Result<Response> {
    check_wait::<FloatingIp>(&wait)?;
    control::change::check_labels(&input.labels)?;
    let make = async {
        let new = NewFloatingIp {
            network: input.network.clone(),
            address: input.address,
            family: input.family.map(family).transpose()?,
            name: input.name.clone(),
            description: input.description.clone(),
            labels: input.labels.clone(),
            target: input.target.as_ref().map(target_asked).transpose()?,
        };
        app.control().create_floating_ip(&caller, new).await
    };
    let name = input.name.clone().unwrap_or_default();
    let made = note(&app, &caller, deed("create", "floating_ip", &name), make.await).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateFloatingIp>,
) -> Result<Response> {
    check_wait::<FloatingIp>(&wait)?;
    let act = async {
        let control = app.control();
        let id = FloatingIp::find(control, &caller, &reference)?.record.meta.id.to_string();
        let target = match &input.target {
            None => None,
            Some(None) => Some(None),
            Some(Some(target)) => Some(Some(target_asked(target)?)),
        };
        let target = target.as_ref().map(Option::as_ref);
        control
            .update_floating_ip(&caller, &id, target, |floating| {
                describe(&mut floating.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)
            })
            .await
    };
    let action = match &input.target {
        Some(Some(_)) => "attach",
        Some(None) => "detach",
        None => "update",
    };
    let changed = note(&app, &caller, deed(action, "floating_ip", &reference), act.await).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_floating_ip(&asker.0, id).await;
    remove::<FloatingIp>(&app, &asker, &reference, &wait, act).await
}
