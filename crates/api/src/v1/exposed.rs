//! What can be reached from outside.

use super::{
    routes::{Doc, Routes},
    scene::Scene,
    served::look_at,
    types::{
        List,
        publish::{Exposed, ExposedQuery},
    },
};
use crate::{
    app::{App, Asker},
    error::Result,
    request::Params,
};
use axum::{Json, extract::State, http::Method};
use model::{
    exposure::{Exposure, Way},
    instance::Instance,
    port::Port,
};

/// Adds the route.
pub fn routes(routes: Routes) -> Routes {
    routes.add(
        Method::GET,
        "/v1/exposed",
        "exposed",
        Doc::new("List what can be reached from outside")
            .details("Floating IPs and published ports, with what the security groups let in and from where. Entries with `open: false` are there and let nobody in.")
            .query::<ExposedQuery>()
            .page::<Exposed>(200, "Everything, in order of address and port."),
        list,
    )
}

async fn list(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(query): Params<ExposedQuery>,
) -> Result<Json<List<Exposed>>> {
    let control = app.control();
    let (caller, everywhere) = look_at(control, &caller, query.project.as_deref())?;
    let scene = Scene::new(control, &caller);
    let mut all = control.exposures((!everywhere).then_some(caller.project));
    if let Some(instance) = &query.instance {
        let id = scene.instance_meant(instance)?;
        all.retain(|e| e.instance == Some(id));
    }
    Ok(Json(List { items: all.iter().map(|e| view(e, &scene)).collect(), next: None }))
}

fn view(exposure: &Exposure, scene: &Scene<'_>) -> Exposed {
    let way = match exposure.way {
        Way::FloatingIp => "floating_ip",
        Way::Published => "published",
    };
    Exposed {
        way: way.into(),
        project: scene.project(exposure.project),
        instance: exposure.instance.map(|id| scene.reference::<Instance>(id)),
        port: scene.reference::<Port>(exposure.port),
        address: exposure.address,
        protocol: exposure.protocol.map(|p| p.to_string()),
        ports: exposure.ports.map(|p| p.to_string()),
        icmp_type: exposure.icmp.map(|i| i.kind),
        icmp_code: exposure.icmp.and_then(|i| i.code),
        inner_port: exposure.inner_port,
        from: exposure.from.iter().map(ToString::to_string).collect(),
        open: exposure.is_open(),
    }
}
