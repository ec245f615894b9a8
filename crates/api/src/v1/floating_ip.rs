//! Floating IPs.

use super::{
    described::describe,
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::Served,
    types::{
        Head,
        floating_ip::{CreateFloatingIp, FloatingIp as View, Target, TargetRequest, UpdateFloatingIp},
        list::ListQuery,
    },
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

impl Kept for FloatingIp {
    fn name_asked(new: &CreateFloatingIp) -> &str {
        new.name.as_deref().unwrap_or_default()
    }

    async fn make(control: &Control, caller: &Caller, new: CreateFloatingIp) -> control::Result<Self> {
        control::change::check_labels(&new.labels)?;
        let new = NewFloatingIp {
            network: new.network,
            address: new.address,
            family: new.family.map(family).transpose()?,
            name: new.name,
            description: new.description,
            labels: new.labels,
            target: new.target.as_ref().map(target_asked).transpose()?,
        };
        control.create_floating_ip(caller, new).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateFloatingIp,
    ) -> control::Result<Self> {
        let id = Self::find(control, caller, reference)?.record.meta.id.to_string();
        let target = match &change.target {
            None => None,
            Some(None) => Some(None),
            Some(Some(target)) => Some(Some(target_asked(target)?)),
        };
        let target = target.as_ref().map(Option::as_ref);
        let edit = |floating: &mut Self| {
            describe(&mut floating.meta, change.name.as_ref(), change.description.as_ref(), &change.labels)
        };
        control.update_floating_ip(caller, &id, target, edit).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_floating_ip(caller, id).await
    }

    fn action(change: &UpdateFloatingIp) -> &'static str {
        match &change.target {
            Some(Some(_)) => "attach",
            Some(None) => "detach",
            None => "update",
        }
    }
}

/// Adds the routes of floating IPs.
pub fn routes(routes: Routes) -> Routes {
    routes
        .kept::<FloatingIp>(
            Doc::new("Take a floating IP").answer::<View>(201, "Taken."),
            Doc::new("Attach, move or detach a floating IP")
                .details("Takes effect at once, while the instances run. `target: null` detaches. May be named by its address."),
            Doc::new("Give a floating IP back"),
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
