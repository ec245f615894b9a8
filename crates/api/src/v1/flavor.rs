//! Flavors.

use super::{
    described::{describe, dress},
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::Served,
    types::{
        Head,
        flavor::{CreateFlavor, Flavor as View, UpdateFlavor},
        patch::apply_labels,
    },
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

impl Kept for Flavor {
    fn name_asked(new: &CreateFlavor) -> &str {
        &new.name
    }

    async fn make(control: &Control, caller: &Caller, new: CreateFlavor) -> control::Result<Self> {
        control::change::check_labels(&new.labels)?;
        let asked = NewFlavor {
            size: size_of(&new)?,
            name: new.name,
            flavorid: None,
            description: String::new(),
            public: new.public.unwrap_or(true),
            extra_specs: new.extra_specs,
        };
        let made = control.create_flavor(caller, asked).await?;
        dress(control, caller, made, &new.description, &new.labels).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateFlavor,
    ) -> control::Result<Self> {
        caller.require(Role::Admin, "changing a flavor")?;
        let projects = change.projects.as_ref().map(|all| projects_of(control, caller, all)).transpose()?;
        let edit = |flavor: &mut Self| {
            describe(&mut flavor.meta, change.name.as_ref(), change.description.as_ref(), &change.labels)?;
            flavor.public = change.public.unwrap_or(flavor.public);
            if let Some(projects) = &projects {
                flavor.projects.clone_from(projects);
            }
            apply_labels(&mut flavor.extra_specs, &change.extra_specs);
            Ok(())
        };
        control.change(caller, reference, edit).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_flavor(caller, id).await.map(drop)
    }
}

/// Adds the routes of flavors.
pub fn routes(routes: Routes) -> Routes {
    routes.kept::<Flavor>(
        Doc::new("Make a flavor").details("Admin only."),
        Doc::new("Change a flavor").details("Admin only. Its size never changes."),
        Doc::new("Delete a flavor").details("Admin only. Instances made with it keep their size."),
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

/// Projects by names or ids.
fn projects_of(control: &Control, caller: &Caller, all: &[String]) -> control::Result<BTreeSet<ProjectId>> {
    if all.len() > PROJECTS_MAX {
        let message = format!("{} projects: a flavor is opened to {PROJECTS_MAX} at most", all.len());
        return Err(Error::new(Code::TooLarge, message).field("projects").hint("make it public"));
    }
    let id = |reference: &String| control.find_project(caller, reference).map(|found| found.record.meta.id);
    all.iter().map(id).collect::<control::Result<_>>().map_err(|e| e.field("projects"))
}
