//! Deployments: their routes, and what a template means. A template is kept as clients send it; only here it is read.

use super::{
    instance::translate,
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::Served,
    types::{
        Head,
        deployment::{CreateDeployment, Deployment as View, TemplateRequest, UpdateDeployment},
        instance::CreateInstance,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use control::{
    Caller, Control, Error,
    deployment::{DeploymentChange, NewDeployment, Template},
    instance::NewInstance,
};
use model::{
    deployment::{COPY, Deployment},
    error::Code,
};

impl Served for Deployment {
    type View = View;

    fn view(&self, scene: &Scene<'_>) -> View {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let counts = scene.control.count_copies(self);
        let status = scene.control.deployment_status(self.meta.id);
        let scale = self.autoscale.and_then(|_| scene.control.deployment_scale(self.meta.id));
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            kind: self.kind,
            replicas: self.wanted(scale.as_ref().map(|scale| &scale.record)),
            revision: self.wanted_revision(),
            restarted_at: self.restarted_at,
            recreate: self.recreate,
            copies: number(counts.all),
            current: number(counts.current),
            ready: number(counts.ready),
            autoscale: self.autoscale.map(Into::into),
            used_percent: scale.map(|scale| scale.record.used_percent),
            is_observed: status.as_ref().is_some_and(|it| it.record.generation >= self.meta.generation),
            fault: status.and_then(|it| it.record.fault.as_ref().map(Into::into)),
        }
    }
}

impl Kept for Deployment {
    fn name_asked(new: &CreateDeployment) -> &str {
        &new.name
    }

    async fn make(control: &Control, caller: &Caller, new: CreateDeployment) -> control::Result<Self> {
        let template = read(control, caller, &new.name, &new.template)?;
        let new = NewDeployment {
            name: new.name,
            description: new.description,
            labels: new.labels,
            kind: new.kind,
            replicas: new.replicas,
            template,
            autoscale: new.autoscale.map(Into::into),
        };
        control.create_deployment(caller, new).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateDeployment,
    ) -> control::Result<Self> {
        let name = Self::find(control, caller, reference)?.record.meta.name.to_string();
        let template = change.template.as_ref().map(|it| read(control, caller, &name, it)).transpose()?;
        let change = DeploymentChange {
            description: change.description,
            replicas: change.replicas,
            template,
            autoscale: change.autoscale.map(|rule| rule.map(Into::into)),
            restarted_at: change.restarted_at,
        };
        control.change_deployment(caller, reference, &change).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_deployment(caller, id).await
    }
}

/// Adds the routes of deployments.
pub fn routes(routes: Routes) -> Routes {
    routes.kept::<Deployment>(
        Doc::new("Make a deployment")
            .details("holm makes its copies, and makes them again when one is missing.")
            .answer::<View>(201, "Made; its copies follow."),
        Doc::new("Change a deployment")
            .details("Another template, or a restart, replaces its copies one after the other.")
            .answer::<View>(200, "Changed; its copies follow."),
        Doc::new("Delete a deployment").details("Its copies stay, as instances that nobody watches over."),
    )
}

/// A template as it is kept. What no copy could be is refused here, before anything is made of it.
fn read(
    control: &Control,
    caller: &Caller,
    name: &str,
    asked: &TemplateRequest,
) -> control::Result<Template> {
    let instance = &asked.instance;
    let odd = [
        ("name", !instance.name.is_empty()),
        ("schedule", instance.schedule.is_some()),
        ("remove_on_exit", instance.remove_on_exit),
        ("floating_ip", instance.floating_ip.is_some()),
    ];
    if let Some((field, _)) = odd.iter().find(|(_, given)| *given) {
        let message = format!("{field} is not for copies, of which there are several");
        return Err(Error::invalid(&format!("template.instance.{field}"), message));
    }
    let ports = instance.networks.iter().flatten();
    let is_single = !instance.publish.is_empty()
        || instance.volumes.iter().any(|volume| volume.volume.is_some())
        || ports.clone().any(|port| port.port.is_some() || port.address.is_some());
    let bytes = serde_json::to_vec(instance).map_err(|error| Error::new(Code::Internal, error))?;
    let copy = copy_asked(control, caller, &bytes, &format!("{name}-{}-1", asked.revision))?;
    control::change::check_labels(&copy.labels)?;
    control.check_new_instance(caller, &copy)?;
    Ok(Template {
        bytes,
        revision: asked.revision.clone(),
        recreate: asked.recreate,
        is_single,
        aliases: ports.clone().next().map(|port| port.aliases.clone()).unwrap_or_default(),
    })
}

/// What is asked for of the copy of this name, from a template as it is kept.
///
/// # Errors
/// `invalid`: it was kept by another holm, which took what this one does not.
pub fn copy_asked(
    control: &Control,
    caller: &Caller,
    template: &[u8],
    name: &str,
) -> control::Result<NewInstance> {
    let quoted = serde_json::Value::from(name).to_string();
    let text = String::from_utf8_lossy(template).replace(COPY, &quoted[1..quoted.len() - 1]);
    let mut asked: CreateInstance = serde_json::from_str(&text).map_err(|error| {
        Error::new(Code::Invalid, format!("the template is not understood: {error}"))
            .hint("play its file again")
    })?;
    asked.name = name.to_string();
    for file in asked.files.iter_mut().flat_map(|set| &mut set.files) {
        let bytes = STANDARD.decode(&file.content).unwrap_or_default();
        if let Some(bytes) = named(&bytes, name) {
            file.content = STANDARD.encode(bytes);
        }
    }
    translate(control, caller, &asked)
}

/// Bytes with the copy's name where it belongs; `None` where it has no place in them.
fn named(bytes: &[u8], name: &str) -> Option<Vec<u8>> {
    let mark = COPY.as_bytes();
    let (mut out, mut rest) = (vec![], bytes);
    while let Some(at) = rest.windows(mark.len()).position(|part| part == mark) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(name.as_bytes());
        rest = &rest[at + mark.len()..];
    }
    if rest.len() == bytes.len() {
        return None;
    }
    out.extend_from_slice(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_its_name_where_that_belongs() {
        for (bytes, expected) in [
            (format!("I am {COPY}, {COPY}!"), Some("I am web-1, web-1!")),
            (COPY.to_string(), Some("web-1")),
            ("nobody".to_string(), None),
            (String::new(), None),
            (COPY.chars().skip(1).collect(), None),
        ] {
            assert_eq!(named(bytes.as_bytes(), "web-1").as_deref(), expected.map(str::as_bytes), "{bytes:?}");
        }
    }
}
