//! Server groups.

use super::{
    audit::{deed, note},
    described::{describe, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Head, Reference,
        list::WaitQuery,
        server_group::{CreateServerGroup, ServerGroup as View, UpdateServerGroup},
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
use control::server_group::NewServerGroup;
use model::server_group::ServerGroup;

impl Served for ServerGroup {
    type View = View;

    fn view(&self, scene: &Scene<'_>) -> View {
        let members = scene.control.members_of_server_group(self.meta.id);
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            policy: self.policy,
            per_host_max: self.per_host_max,
            members: members.iter().map(|member| Reference::to(&member.record.meta)).collect(),
        }
    }
}

/// Adds the routes of server groups.
pub fn routes(routes: Routes) -> Routes {
    let tag = "server_groups";
    routes
        .collection::<ServerGroup>()
        .add(
            Method::POST,
            "/v1/server_groups",
            tag,
            Doc::new("Make a server group")
                .details("Its policy is kept when an instance that names it is placed.")
                .wait()
                .input::<CreateServerGroup>()
                .answer::<View>(201, "Made."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/server_groups/{ref}",
            tag,
            Doc::new("Change a server group")
                .wait()
                .input::<UpdateServerGroup>()
                .answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/server_groups/{ref}",
            tag,
            Doc::new("Delete a server group")
                .details("Its instances stay where they are.")
                .wait()
                .empty(204, "Gone."),
            delete,
        )
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateServerGroup>,
) -> Result<Response> {
    check_wait::<ServerGroup>(&wait)?;
    let new = NewServerGroup {
        name: input.name.clone(),
        description: input.description,
        labels: input.labels,
        policy: input.policy,
        per_host_max: input.per_host_max,
        user: None,
    };
    let made = app.control().create_server_group(&caller, new).await;
    let made = note(&app, &caller, deed("create", "server_group", &input.name), made).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateServerGroup>,
) -> Result<Response> {
    check_wait::<ServerGroup>(&wait)?;
    let edit = |group: &mut ServerGroup| {
        describe(&mut group.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)
    };
    let changed = app.control().change::<ServerGroup>(&caller, &reference, edit).await;
    let changed = note(&app, &caller, deed("update", "server_group", &reference), changed).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_server_group(&asker.0, id).await.map(|_| ());
    remove::<ServerGroup>(&app, &asker, &reference, &wait, act).await
}
