//! Who uses an image, and what of the disk would come free without it.

use crate::{
    app::{App, Asker},
    error::Result,
    v1::{
        routes::{Doc, Routes},
        scene::Scene,
        types::image::{ImageUser, ImageUsers},
    },
};
use axum::{
    Json,
    extract::{Path, State},
    http::Method,
};
use control::image::User;
use model::image::{Image, ImageContent};
use std::collections::BTreeMap;

/// Adds the route.
pub fn routes(routes: Routes) -> Routes {
    routes.add(
        Method::GET,
        "/v1/images/{ref}/users",
        "images",
        Doc::new("List what uses an image")
            .details("What it cannot be deleted for (`firm`), and the images and build steps that have layers of it, so that its end frees less than its size.")
            .answer::<ImageUsers>(200, "Users, those that hold it first."),
        list,
    )
}

async fn list(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
) -> Result<Json<ImageUsers>> {
    let control = app.control();
    let image = control.find::<Image>(&caller, &reference)?;
    let users = control.users_of_image(&caller, &image.record.meta.id.to_string())?;
    let status = control.image_status(image.record.meta.id);
    let content = status.as_ref().and_then(|status| status.record.content());
    let (own_bytes, shared_bytes) = match content {
        Some(content) => split(&app, content, &users).await,
        None => (0, 0),
    };
    let scene = Scene::new(control, &caller);
    Ok(Json(ImageUsers {
        users: users.iter().map(|user| view(user, &scene)).collect(),
        own_bytes,
        shared_bytes,
    }))
}

fn view(user: &User, scene: &Scene<'_>) -> ImageUser {
    let is_seen = scene.caller.sees(user.project) || user.noun == "image" && !user.hold.is_firm();
    ImageUser {
        noun: user.noun.into(),
        hold: user.hold,
        firm: user.hold.is_firm(),
        id: is_seen.then_some(user.id),
        name: if is_seen { user.name.clone() } else { String::new() },
        project: scene.caller.sees(user.project).then(|| scene.project(user.project)),
        layers: user.layers.len() as u64,
    }
}

/// Bytes that nobody else needs, and those that others have as well.
async fn split(app: &App, content: &ImageContent, users: &[User]) -> (u64, u64) {
    let Some(oci) = &content.oci else { return (content.size_bytes, 0) };
    // One whose config cannot be read takes what can be told of it: nothing.
    let details = app.streams().image_details(content).await.unwrap_or_default();
    // A layer may be in an image twice, and lies on the disk once.
    let layers: BTreeMap<&String, u64> = oci.diff_ids.iter().zip(details.layer_bytes).collect();
    let is_shared = |id: &String| users.iter().any(|user| user.layers.contains(id));
    let (mut own, mut shared) = (0, 0);
    for (id, bytes) in layers {
        *(if is_shared(id) { &mut shared } else { &mut own }) += bytes;
    }
    (own, shared)
}
