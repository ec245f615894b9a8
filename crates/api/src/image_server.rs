//! The image server: public root file systems for other clouds, for LXD and for Incus, in the form called simplestreams.
//!
//! A listener of its own, which an operator switches on. Nobody is asked who they are here, so nothing is here but the images
//! that an admin made public, and nothing can be changed.
//!
//! ```text
//!   GET /streams/v1/index.json, /streams/v1/images.json     what there is
//!   GET /images/<id>/metadata.tar, /images/<id>/root.tar…   its files
//! ```
//! A root is read once for its sums, when somebody first asks; an image never changes.

use crate::{
    app::{App, frame},
    error::{Failure, Result, finish},
    routing::{Router, get},
    streams::OfferedRoot,
    v1::image::content::give,
};
use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
};
use control::{Caller, Role};
use futures::StreamExt;
use model::{
    error::Code,
    id::ImageId,
    image::{Image, ImageKind, Visibility},
    simplestreams::{
        INDEX_PATH,
        offer::{self, METADATA, Offer, PRODUCTS_PATH, can_be_alias, root_name},
    },
};
use serde_json::Value;
use std::{collections::HashMap, sync::Arc};
use store::Stored;
use tokio::sync::{Mutex, Semaphore};

/// Most images that are told, the newest ones.
const OFFERS_MAX: usize = 1_000;
/// Most roots that are sent at a time: the rest of the cloud needs the line as well.
const DOWNLOADS_MAX: usize = 32;

#[derive(Clone)]
struct Door {
    app: App,
    /// What was summed already.
    known: Arc<Mutex<HashMap<ImageId, Arc<OfferedRoot>>>>,
    downloads: Arc<Semaphore>,
}

/// The door.
pub fn router(app: App) -> axum::Router {
    let door =
        Door { app: app.clone(), known: Arc::default(), downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)) };
    Router::new()
        .route(&format!("/{INDEX_PATH}"), get(index))
        .route(&format!("/{PRODUCTS_PATH}"), get(products))
        .route("/images/{id}/{file}", get(file))
        .axum()
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app, frame))
        // Outside of the frame, which asks who calls the paths of the cloud's API: there are none here.
        .fallback(async |request: Request| finish(nothing(request.uri().path()).into_response(), ""))
        .with_state(door)
}

fn nothing(path: &str) -> Failure {
    Failure::new(Code::NotFound, format!("there is no {path:.200}"))
        .hint(format!("/{INDEX_PATH} names what there is"))
}

async fn wrong_method(method: Method) -> Response {
    Failure::new(Code::Invalid, format!("{method} is not served here"))
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
        .hint("images are changed by the cloud's API")
        .into_response()
}

fn document(value: &Value) -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ([kind], value.to_string()).into_response()
}

async fn index(State(door): State<Door>) -> Response {
    document(&offer::index(&door.offers().await))
}

async fn products(State(door): State<Door>) -> Response {
    document(&offer::images(&door.offers().await))
}

async fn file(
    State(door): State<Door>,
    Path((id, name)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let found = id.parse::<ImageId>().ok().and_then(|id| door.app.control().get::<Image>(id));
    let found = found.filter(|found| door.is_offered(&found.record));
    let found = found.ok_or_else(|| nothing(uri.path()))?;
    let root = door.root(&found.record).await?;
    if name == METADATA {
        let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
        return Ok(([kind], root.metadata.clone()).into_response());
    }
    if name != root_name(root.suffix) {
        return Err(nothing(uri.path()));
    }
    door.send(&found.record, &headers).await
}

impl Door {
    /// Whether everybody may have an image.
    fn is_offered(&self, image: &Image) -> bool {
        let is_plain = !image.hidden && !image.deactivated && !image.meta.is_deleting();
        image.kind == ImageKind::System
            && image.visibility == Visibility::Public
            && is_plain
            && can_be_alias(image.meta.name.as_str())
            && self
                .app
                .control()
                .image_status(image.meta.id)
                .is_some_and(|status| status.record.content().is_some())
    }

    /// What is offered, the newest first. An image whose file cannot be read is left out.
    async fn offers(&self) -> Vec<Offer> {
        let mut all: Vec<Arc<Stored<Image>>> = self.app.control().store().list::<Image>();
        all.retain(|found| self.is_offered(&found.record));
        all.sort_by_key(|found| std::cmp::Reverse(found.record.meta.created_at));
        all.truncate(OFFERS_MAX);
        let mut offers = vec![];
        for found in &all {
            match self.root(&found.record).await {
                Ok(root) => offers.push(offer_of(&found.record, &root)),
                Err(failure) => {
                    let (image, why) = (&found.record.meta.name, &failure.error.message);
                    tracing::warn!(%image, why, "a public image cannot be offered");
                }
            }
        }
        self.known.lock().await.retain(|id, _| all.iter().any(|found| found.record.meta.id == *id));
        offers
    }

    /// An image's files. One is read at a time, and once.
    async fn root(&self, image: &Image) -> Result<Arc<OfferedRoot>> {
        let mut known = self.known.lock().await;
        if let Some(root) = known.get(&image.meta.id) {
            return Ok(Arc::clone(root));
        }
        let root = Arc::new(self.app.streams().offer_root(image, offer::metadata(image)).await?);
        known.insert(image.meta.id, Arc::clone(&root));
        Ok(root)
    }

    async fn send(&self, image: &Image, headers: &HeaderMap) -> Result<Response> {
        let place = Arc::clone(&self.downloads).try_acquire_owned().map_err(|_| {
            let message = format!("{DOWNLOADS_MAX} images are being sent, no more are possible at a time");
            Failure::new(Code::TooMany, message).hint("try again in a while")
        })?;
        let anyone = Caller {
            project: image.meta.project,
            role: Role::Reader,
            actor: "anyone".into(),
            request_id: String::new(),
        };
        let (head, body) = give(&self.app, &anyone, image, headers).await?.into_parts();
        // The place is taken as long as the bytes are on their way.
        let bytes = body.into_data_stream().map(move |chunk| {
            let _taken = &place;
            chunk
        });
        Ok(Response::from_parts(head, Body::from_stream(bytes)))
    }
}

fn offer_of(image: &Image, root: &OfferedRoot) -> Offer {
    let (os, release) = offer::system_of(image);
    Offer {
        id: image.meta.id,
        name: image.meta.name.to_string(),
        arch: image.arch.clone(),
        created_at: image.meta.created_at,
        os,
        release,
        metadata: root.metadata_file.clone(),
        root: root.root.clone(),
        root_suffix: root.suffix.to_string(),
        combined_sha256: root.combined_sha256.clone(),
    }
}
