//! Flavors.

use super::{
    audit::{deed, note},
    described::{describe, dress, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Head,
        flavor::{CreateFlavor, Flavor as View, UpdateFlavor},
        list::WaitQuery,
        patch::apply_labels,
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
use control::{Caller, Control, Error, Role, flavor::NewFlavor};
use model::{
    error::Code,
    flavor::{Flavor, PROJECTS_MAX, Size, size_from_name},
    id::ProjectId,
};
use std::collections::BTreeSet;

impl Served for Flavor {
    type View = View;

    fn view(&self, scene: &Scene<'_>) -> View {
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            size: self.size.into(),
            public: self.public,
            projects: self.projects.iter().map(|id| scene.project(*id)).collect(),
            openstack_id: self.openstack_id(),
            extra_specs: self.extra_specs.clone(),
        }
    }
}

/// Adds the routes of flavors.
pub fn routes(routes: Routes) -> Routes {
    let tag = "flavors";
    routes
        .collection::<Flavor>()
        .add(
            Method::POST,
            "/v1/flavors",
            tag,
            Doc::new("Make a flavor")
                .details("Admin only.")
                .wait()
                .input::<CreateFlavor>()
                .answer::<View>(201, "Made."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/flavors/{ref}",
            tag,
            Doc::new("Change a flavor")
                .details("Admin only. Its size never changes.")
                .wait()
                .input::<UpdateFlavor>()
                .answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/flavors/{ref}",
            tag,
            Doc::new("Delete a flavor")
                .details("Admin only. Instances made with it keep their size.")
                .wait()
                .empty(204, "Gone."),
            delete,
        )
}

/// The size by number; what is missing is read out of the name.
fn size_of(input: &CreateFlavor) -> control::Result<Option<Size>> {
    if input.vcpus.is_none() && input.memory_mib.is_none() && input.disk_gib.is_none() {
        return Ok(None);
    }
    let named = input.name.parse().ok().and_then(|name| size_from_name(&name).ok());
    let missing = |field: &str| {
        Error::invalid(field, format!("{field} is missing, and the name tells no size"))
            .hint("give vcpus and memory_mib, or a name like g1.c1m512")
    };
    Ok(Some(Size {
        vcpus: input.vcpus.or(named.map(|s| s.vcpus)).ok_or_else(|| missing("vcpus"))?,
        memory_mib: input.memory_mib.or(named.map(|s| s.memory_mib)).ok_or_else(|| missing("memory_mib"))?,
        disk_gib: input.disk_gib.or(named.map(|s| s.disk_gib)).unwrap_or(0),
    }))
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateFlavor>,
) -> Result<Response> {
    check_wait::<Flavor>(&wait)?;
    control::change::check_labels(&input.labels)?;
    let make = async {
        let new = NewFlavor {
            name: input.name.clone(),
            size: size_of(&input)?,
            flavorid: None,
            description: String::new(),
            public: input.public.unwrap_or(true),
            extra_specs: input.extra_specs.clone(),
        };
        let made = app.control().create_flavor(&caller, new).await?;
        dress(app.control(), &caller, made, &input.description, &input.labels).await
    };
    let made = note(&app, &caller, deed("create", "flavor", &input.name), make.await).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

/// Projects by names or ids.
fn projects_of(control: &Control, caller: &Caller, all: &[String]) -> control::Result<BTreeSet<ProjectId>> {
    if all.len() > PROJECTS_MAX {
        let message = format!("{} projects: a flavor is opened to {PROJECTS_MAX} at most", all.len());
        return Err(Error::new(Code::TooLarge, message).field("projects").hint("make it public"));
    }
    let id = |reference: &String| control.find_project(caller, reference).map(|found| found.record.meta.id);
    all.iter().map(id).collect::<control::Result<_>>().map_err(|e| e.field("projects"))
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateFlavor>,
) -> Result<Response> {
    check_wait::<Flavor>(&wait)?;
    let act = async {
        caller.require(Role::Admin, "changing a flavor")?;
        let projects =
            input.projects.as_ref().map(|all| projects_of(app.control(), &caller, all)).transpose()?;
        app.control()
            .change::<Flavor>(&caller, &reference, |flavor| {
                describe(&mut flavor.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)?;
                flavor.public = input.public.unwrap_or(flavor.public);
                if let Some(projects) = &projects {
                    flavor.projects.clone_from(projects);
                }
                apply_labels(&mut flavor.extra_specs, &input.extra_specs);
                Ok(())
            })
            .await
    };
    let changed = note(&app, &caller, deed("update", "flavor", &reference), act.await).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_flavor(&asker.0, id).await.map(|_| ());
    remove::<Flavor>(&app, &asker, &reference, &wait, act).await
}
