//! Deployments: their routes, and what a template means. A template is kept as clients send it; only here it is read.

use super::{
    audit::{deed, note},
    described::remove,
    instance::translate,
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Head,
        deployment::{CreateDeployment, Deployment as View, TemplateRequest, UpdateDeployment},
        instance::CreateInstance,
        list::WaitQuery,
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

/// Adds the routes of deployments.
pub fn routes(routes: Routes) -> Routes {
    let tag = "deployments";
    routes
        .collection::<Deployment>()
        .add(
            Method::POST,
            "/v1/deployments",
            tag,
            Doc::new("Make a deployment")
                .details("holm makes its copies, and makes them again when one is missing.")
                .wait()
                .input::<CreateDeployment>()
                .answer::<View>(201, "Made; its copies follow."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/deployments/{ref}",
            tag,
            Doc::new("Change a deployment")
                .details("Another template, or a restart, replaces its copies one after the other.")
                .wait()
                .input::<UpdateDeployment>()
                .answer::<View>(200, "Changed; its copies follow."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/deployments/{ref}",
            tag,
            Doc::new("Delete a deployment")
                .details("Its copies stay, as instances that nobody watches over.")
                .wait()
                .empty(204, "Gone."),
            delete,
        )
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateDeployment>,
) -> Result<Response> {
    check_wait::<Deployment>(&wait)?;
    let act = async {
        let template = read(app.control(), &caller, &input.name, &input.template)?;
        let new = NewDeployment {
            name: input.name.clone(),
            description: input.description.clone(),
            labels: input.labels.clone(),
            kind: input.kind,
            replicas: input.replicas,
            template,
            autoscale: input.autoscale.map(Into::into),
        };
        app.control().create_deployment(&caller, new).await
    };
    let made = act.await;
    let made = note(&app, &caller, deed("create", "deployment", &input.name), made).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateDeployment>,
) -> Result<Response> {
    check_wait::<Deployment>(&wait)?;
    let act = async {
        let control = app.control();
        let name = Deployment::find(control, &caller, &reference)?.record.meta.name.to_string();
        let template = input.template.as_ref().map(|it| read(control, &caller, &name, it)).transpose()?;
        let change = DeploymentChange {
            description: input.description.clone(),
            replicas: input.replicas,
            template,
            autoscale: input.autoscale.map(|rule| rule.map(Into::into)),
            restarted_at: input.restarted_at,
        };
        control.change_deployment(&caller, &reference, &change).await
    };
    let changed = act.await;
    let changed = note(&app, &caller, deed("update", "deployment", &reference), changed).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_deployment(&asker.0, id).await;
    remove::<Deployment>(&app, &asker, &reference, &wait, act).await
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
