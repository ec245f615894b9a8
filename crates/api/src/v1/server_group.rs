//! Server groups.

use super::{
    described::describe,
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::Served,
    types::{
        Head, Reference,
        server_group::{CreateServerGroup, ServerGroup as View, UpdateServerGroup},
    },
};
use control::{Caller, Control, server_group::NewServerGroup};
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

impl Kept for ServerGroup {
    fn name_asked(new: &CreateServerGroup) -> &str {
        &new.name
    }

    async fn make(control: &Control, caller: &Caller, new: CreateServerGroup) -> control::Result<Self> {
        let CreateServerGroup { name, description, labels, policy, per_host_max } = new;
        let new = NewServerGroup { name, description, labels, policy, per_host_max, user: None };
        control.create_server_group(caller, new).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateServerGroup,
    ) -> control::Result<Self> {
        let edit = |group: &mut Self| {
            describe(&mut group.meta, change.name.as_ref(), change.description.as_ref(), &change.labels)
        };
        control.change(caller, reference, edit).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_server_group(caller, id).await.map(drop)
    }
}

/// Adds the routes of server groups.
pub fn routes(routes: Routes) -> Routes {
    routes.kept::<ServerGroup>(
        Doc::new("Make a server group")
            .details("Its policy is kept when an instance that names it is placed."),
        Doc::new("Change a server group"),
        Doc::new("Delete a server group").details("Its instances stay where they are."),
    )
}
