//! What instances use, and which of them would do with less.

use super::{
    routes::{Doc, Routes},
    scene::Scene,
    served::look_at,
    types::{
        List, Reference,
        advice::{Advice, AdviceQuery},
    },
};
use crate::{
    app::{App, Asker},
    error::Result,
    request::Params,
};
use axum::{Json, extract::State, http::Method};
use control::{Caller, Control};
use model::{
    flavor::Flavor,
    instance::Instance,
    usage::{Peaks, smaller},
};
use std::sync::Arc;
use store::Stored;

/// Adds the route.
pub fn routes(routes: Routes) -> Routes {
    routes.add(
        Method::GET,
        "/v1/advice",
        "instances",
        Doc::new("Show what instances use, and a smaller flavor where one would do")
            .details("Of those that run and were measured. A flavor is named after an hour; it has a quarter more than the highest use.")
            .query::<AdviceQuery>()
            .page::<Advice>(200, "One for each instance, by name."),
        list,
    )
}

async fn list(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(query): Params<AdviceQuery>,
) -> Result<Json<List<Advice>>> {
    let control = app.control();
    let (caller, everywhere) = look_at(control, &caller, query.project.as_deref())?;
    let meant = {
        let scene = Scene::new(control, &caller);
        query.instance.as_deref().map(|instance| scene.instance_meant(instance)).transpose()?
    };
    let mut all: Vec<Arc<Stored<Instance>>> = match (meant, everywhere) {
        (Some(id), _) => control.get::<Instance>(id).into_iter().collect(),
        (None, true) => control.list_everywhere::<Instance>(&caller)?,
        (None, false) => control.list_own::<Instance>(&caller),
    };
    all.retain(|stored| !stored.record.meta.is_deleting());
    let mut items = vec![];
    for stored in all {
        if let Some(peaks) = app.streams().peaks(&stored.record).await {
            items.push(view(control, &caller, &stored.record, peaks));
        }
    }
    Ok(Json(List { items, next: None }))
}

fn view(control: &Control, caller: &Caller, instance: &Instance, peaks: Peaks) -> Advice {
    let owner = Caller { project: instance.meta.project, ..caller.clone() };
    let flavors = control.list::<Flavor>(&owner);
    let sizes = flavors.iter().map(|flavor| (flavor, flavor.record.size));
    let found = smaller(instance.size, peaks, sizes);
    Advice {
        instance: Reference::to(&instance.meta),
        vcpus: instance.size.vcpus,
        memory_mib: instance.size.memory_mib,
        measured_s: peaks.measured_s,
        memory_peak_mib: peaks.memory_mib,
        cpu_peak_millis: peaks.cpu_millis,
        flavor: found.map(|(flavor, _)| Reference::to(&flavor.record.meta)),
    }
}
