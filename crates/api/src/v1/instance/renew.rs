//! Verbs that take a word more: lock, rebuild, rescue and resize.

use crate::{
    app::{App, Asker},
    error::Result,
    request::{Input, OptionalInput, Params},
    v1::{
        audit::{deed, note},
        routes::{Doc, Routes},
        served::{answer, check_wait},
        types::{
            instance::{Instance as View, LockRequest, RebuildRequest, RescueRequest, ResizeRequest},
            list::WaitQuery,
        },
    },
};
use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::instance::rebuild::Rebuild;
use model::instance::Instance;

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    let tag = "instances";
    routes
        .add(
            Method::POST,
            "/v1/instances/{ref}/lock",
            tag,
            Doc::new("Refuse deletion and power changes")
                .details("Of anyone but an admin, until it is unlocked. What an admin locked, an admin unlocks.")
                .wait()
                .input::<LockRequest>()
                .answer::<View>(200, "The instance."),
            lock,
        )
        .add(
            Method::POST,
            "/v1/instances/{ref}/rebuild",
            tag,
            Doc::new("Begin anew from an image")
                .details("It keeps its id, ports, addresses and further volumes. What was on its root disk is lost. A container may get other variables and arguments.")
                .wait()
                .input::<RebuildRequest>()
                .answer::<View>(200, "The instance."),
            rebuild,
        )
        .add(
            Method::POST,
            "/v1/instances/{ref}/rescue",
            tag,
            Doc::new("Start a VM from another image, to be rescued")
                .details("It is ended at once, and its own root disk is the second one. `unrescue` ends that.")
                .wait()
                .input::<RescueRequest>()
                .answer::<View>(200, "The instance."),
            rescue,
        )
        .add(
            Method::POST,
            "/v1/instances/{ref}/resize",
            tag,
            Doc::new("Try another flavor")
                .details("What runs starts anew with it. Then `confirm-size` keeps it and `revert-size` takes it back.")
                .wait()
                .input::<ResizeRequest>()
                .answer::<View>(200, "The instance."),
            resize,
        )
}

async fn lock(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    OptionalInput(input): OptionalInput<LockRequest>,
) -> Result<Response> {
    check_wait::<Instance>(&wait)?;
    let outcome = app.control().lock_instance(&caller, &reference, input.reason.as_deref()).await;
    let changed = note(&app, &caller, deed("lock", "instance", &reference), outcome).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn rebuild(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    OptionalInput(input): OptionalInput<RebuildRequest>,
) -> Result<Response> {
    check_wait::<Instance>(&wait)?;
    let asked = Rebuild {
        image: input.image.clone(),
        env: input.env.clone(),
        args: input.args.clone(),
        ..Rebuild::default()
    };
    let outcome = app.control().rebuild_instance(&caller, &reference, &asked).await;
    let changed = note(&app, &caller, deed("rebuild", "instance", &reference), outcome).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn rescue(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    OptionalInput(input): OptionalInput<RescueRequest>,
) -> Result<Response> {
    check_wait::<Instance>(&wait)?;
    let outcome = app.control().rescue_instance(&caller, &reference, input.image.as_deref()).await;
    let changed = note(&app, &caller, deed("rescue", "instance", &reference), outcome).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn resize(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<ResizeRequest>,
) -> Result<Response> {
    check_wait::<Instance>(&wait)?;
    let outcome = app.control().try_size(&caller, &reference, &input.flavor).await;
    let changed = note(&app, &caller, deed("resize", "instance", &reference), outcome).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}
