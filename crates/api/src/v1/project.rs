//! Projects and their quotas.

use super::{
    audit::{deed, note},
    described::{describe, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Head,
        list::WaitQuery,
        project::{CreateProject, Project as View, UpdateProject},
        quota::{Quota, Quotas, ResourceQuota, TotalQuota, UpdateQuota},
    },
};
use crate::{
    app::{App, Asker},
    error::Result,
    request::{Input, Params},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::{Caller, Control, Error, Role, capacity::Capacity};
use model::{project::Project, quota::Resource};
use std::sync::Arc;
use store::Stored;

impl Served for Project {
    type View = View;

    fn view(&self, _scene: &Scene<'_>) -> View {
        View { head: Head::of(&self.meta, self.meta.name.as_str()), enabled: self.enabled }
    }

    fn all(control: &Control, caller: &Caller, _everywhere: bool) -> control::Result<Vec<Arc<Stored<Self>>>> {
        Ok(control.projects(caller))
    }

    fn find(control: &Control, caller: &Caller, reference: &str) -> control::Result<Arc<Stored<Self>>> {
        control.find_project(caller, reference)
    }
}

/// Adds the routes of projects and quotas.
pub fn routes(routes: Routes) -> Routes {
    let tag = "projects";
    routes
        .collection::<Project>()
        .add(
            Method::POST,
            "/v1/projects",
            tag,
            Doc::new("Make a project")
                .details(
                    "It has a private network, a router and a default security group at once. Admin only.",
                )
                .wait()
                .input::<CreateProject>()
                .answer::<View>(201, "Made."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/projects/{ref}",
            tag,
            Doc::new("Change a project").wait().input::<UpdateProject>().answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/projects/{ref}",
            tag,
            Doc::new("Delete a project")
                .details("Refused while it has instances, volumes, floating IPs or images.")
                .wait()
                .empty(204, "Gone."),
            delete,
        )
        .add(
            Method::GET,
            "/v1/quotas",
            "quotas",
            Doc::new("Show limits and use of all projects, and what the hosts have")
                .details("All projects for admins, else the caller's own.")
                .answer::<Quotas>(200, "By project, and added up."),
            list_quotas,
        )
        .add(
            Method::GET,
            "/v1/quotas/{project}",
            "quotas",
            Doc::new("Show limits and use of a project").answer::<Quota>(200, "By resource."),
            show_quota,
        )
        .add(
            Method::PUT,
            "/v1/quotas/{project}",
            "quotas",
            Doc::new("Set limits of a project")
                .details("Resources that are not named keep their limits. Admin only.")
                .input::<UpdateQuota>()
                .answer::<Quota>(200, "By resource."),
            set_quota,
        )
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateProject>,
) -> Result<Response> {
    check_wait::<Project>(&wait)?;
    control::change::check_labels(&input.labels)?;
    let made =
        app.control().create_project(&caller, &input.name, &input.description, input.labels.clone()).await;
    let made = note(&app, &caller, deed("create", "project", &input.name), made).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateProject>,
) -> Result<Response> {
    check_wait::<Project>(&wait)?;
    let changed = change(&app, &caller, &reference, |project| {
        describe(&mut project.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)?;
        project.enabled = input.enabled.unwrap_or(project.enabled);
        Ok(())
    })
    .await;
    let changed = note(&app, &caller, deed("update", "project", &reference), changed).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

/// Projects are found among all that the caller sees, and changed by admins alone.
async fn change(
    app: &App,
    caller: &Caller,
    reference: &str,
    change: impl Fn(&mut Project) -> control::Result<()> + Send + Sync,
) -> control::Result<Project> {
    caller.require(Role::Admin, "changing a project")?;
    let id = app.control().find_project(caller, reference)?.record.meta.id;
    app.control().change::<Project>(caller, &id.to_string(), change).await
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_project(&asker.0, id).await;
    remove::<Project>(&app, &asker, &reference, &wait, act).await
}

fn quota_of(control: &Control, project: &Project) -> Quota {
    let (limits, usage) = control.quota(project.meta.id);
    let resources = Resource::ALL.into_iter().map(|resource| {
        let quota = ResourceQuota {
            limit: limits.of(resource),
            used: usage.of(resource),
            is_default: !limits.0.contains_key(&resource),
        };
        (resource.as_str().to_string(), quota)
    });
    Quota { project: super::types::Reference::to(&project.meta), resources: resources.collect() }
}

async fn list_quotas(State(app): State<App>, Asker(caller): Asker) -> Json<Quotas> {
    let control = app.control();
    let projects = control.projects(&caller);
    let items: Vec<Quota> = projects.iter().map(|project| quota_of(control, &project.record)).collect();
    let total = Resource::ALL.map(|resource| {
        let all = items.iter().map(|quota| quota.resources[resource.as_str()]);
        let limit =
            all.clone().map(|quota| quota.limit).try_fold(0, |sum: u64, limit| sum.checked_add(limit?));
        (resource.as_str().to_string(), TotalQuota { limit, used: all.map(|quota| quota.used).sum() })
    });
    let Capacity { cpus, memory_mib, disk_gib } = control.capacity();
    let capacity =
        [(Resource::Vcpus, cpus), (Resource::MemoryMib, memory_mib), (Resource::VolumeGib, disk_gib)];
    Json(Quotas {
        items,
        total: total.into(),
        capacity: capacity.map(|(resource, has)| (resource.as_str().to_string(), has)).into(),
    })
}

async fn show_quota(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(project): Path<String>,
) -> Result<Json<Quota>> {
    let found = app.control().find_project(&caller, &project)?;
    Ok(Json(quota_of(app.control(), &found.record)))
}

async fn set_quota(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(project): Path<String>,
    Input(input): Input<UpdateQuota>,
) -> Result<Json<Quota>> {
    let named = |field: &'static str| {
        move |name: &String| {
            name.parse::<Resource>().map_err(|e| Error::invalid(&format!("{field}.{name}"), e))
        }
    };
    let keys: Vec<Resource> = input.limits.keys().map(named("limits")).collect::<control::Result<_>>()?;
    let limits: Vec<(Resource, Option<u64>)> = keys.into_iter().zip(input.limits.values().copied()).collect();
    let reset: Vec<Resource> = input.reset.iter().map(named("reset")).collect::<control::Result<_>>()?;
    let changed = change(&app, &caller, &project, |next| {
        next.limits.0.extend(limits.iter().copied());
        next.limits.0.retain(|resource, _| !reset.contains(resource));
        Ok(())
    })
    .await;
    let changed = note(&app, &caller, deed("set_quota", "project", &project), changed).await?;
    Ok(Json(quota_of(app.control(), &changed)))
}
