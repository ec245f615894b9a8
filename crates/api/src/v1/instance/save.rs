//! Images of what system containers have become: their files as a root file system, which others boot.

use crate::{
    app::{App, Asker},
    error::{Failure, Result},
    request::Input,
    streams::Upload,
    v1::{
        audit::{deed, note},
        routes::{Doc, Routes},
        served::answer,
        types::{image::Image as ImageView, instance::SaveInstance, list::WaitQuery},
    },
};
use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::{Caller, Error, image::NewImage};
use model::{
    error::Code,
    image::{Image, ImageKind},
    instance::{Instance, Kind, phase::Phase},
};

/// Adds the route.
pub fn routes(routes: Routes) -> Routes {
    routes.add(
        Method::POST,
        "/v1/instances/{ref}/image",
        "instances",
        Doc::new("Make an image of a system container")
            .details("Of its files, without those of its volumes, while it is stopped. What starts from the image gets a name, a machine id and host keys of its own.")
            .input::<SaveInstance>()
            .answer::<ImageView>(201, "Made; it can be used."),
        save,
    )
}

async fn save(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Input(input): Input<SaveInstance>,
) -> Result<Response> {
    control::change::check_labels(&input.labels)?;
    let slot = app.stream_slot(&caller)?;
    let (name, work) = (input.name.clone(), app.clone());
    let asker = caller.clone();
    // A task of its own: a client that goes leaves no image without its bytes, and none that nobody noted.
    let task = app.tasks().spawn(async move {
        let _slot = slot;
        let made = make(&work, &asker, &reference, input).await;
        note(&work, &asker, deed("create", "image", &name), made).await
    });
    let made =
        task.await.map_err(|_| Failure::new(Code::Internal, "holm made a mistake and made no image"))??;
    answer(&app, &caller, StatusCode::CREATED, &made, &WaitQuery::default()).await
}

async fn make(app: &App, caller: &Caller, reference: &str, input: SaveInstance) -> control::Result<Image> {
    let control = app.control();
    let found = control.find_own::<Instance>(caller, reference, "making an image of an instance")?;
    let instance = &found.record;
    refuse_other(instance, control.phase(instance))?;
    let from = instance.containers.first().and_then(|container| control.get::<Image>(container.image?));
    let new = NewImage {
        description: input.description,
        labels: input.labels,
        login: from.as_ref().and_then(|image| image.record.login.clone()),
        arch: from.as_ref().map(|image| image.record.arch.clone()),
        ..NewImage::to_be_sent(&input.name, ImageKind::System)
    };
    let image = control.create_image(caller, new).await?;
    let sent = async {
        let body = app.streams().export(instance).await?;
        app.streams().upload(&image, Upload { size_bytes: None, sha256: None, body }).await
    };
    match sent.await {
        Ok(()) => Ok(image),
        Err(error) => {
            // Half of an image is none.
            control.delete_image(caller, &image.meta.id.to_string()).await?;
            Err(error)
        }
    }
}

fn refuse_other(instance: &Instance, phase: Phase) -> control::Result<()> {
    let name = &instance.meta.name;
    let hint = match instance.kind {
        Kind::Vm => "`holm volume save VOLUME IMAGE` makes an image of its disk".to_string(),
        Kind::Container => format!("`holm commit {name} IMAGE` makes one of a container"),
        Kind::System if matches!(phase, Phase::Stopped | Phase::Exited) => return Ok(()),
        Kind::System => {
            let message =
                format!("{name} is {}: what runs writes its files while they are read", phase.as_str());
            return Err(Error::new(Code::Conflict, message).hint(format!("`holm stop {name}` first")));
        }
    };
    let message = format!("{name} is a {}: this makes images of system containers", instance.kind.as_str());
    Err(Error::new(Code::Conflict, message).hint(hint))
}
