//! The image server: public root file systems for other clouds, for LXD and for Incus, in the form called simplestreams.
//!
//! A listener of its own, which an operator switches on. Nobody is asked who they are here, so nothing is here but the images
//! that an admin made public, and nothing can be changed.
//!
//! ```text
//!   GET /streams/v1/index.json, /streams/v1/images.json     what there is
//!   GET /images/<id>/metadata.tar, /images/<id>/root.tar…   its files
//! ```
//! A root is read once for its sums, when somebody first asks, one after the other; an image never changes.

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
use control::{Caller, Proof, Role};
use futures::{StreamExt, stream};
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
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use store::Stored;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};

/// Most images that are told, the newest ones.
const OFFERS_MAX: usize = 1_000;
/// Most roots that are sent at a time: the rest of the cloud needs the line as well.
const DOWNLOADS_MAX: usize = 32;
/// How long a client may take nothing of what is sent to it.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Pieces that wait for a client.
const PIECES_MAX: usize = 4;
/// How long a list waits for roots that are being summed; those that take longer are in a later one.
const SUMS_PATIENCE: Duration = Duration::from_secs(20);

/// An image's files once they are summed; `None` for one whose root cannot be read.
type Summed = Option<Arc<OfferedRoot>>;

#[derive(Clone)]
struct Door {
    app: App,
    /// What was summed already, or is being.
    known: Arc<Mutex<HashMap<ImageId, watch::Receiver<Option<Summed>>>>>,
    /// One root is read at a time.
    turn: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
}

/// The door.
pub fn router(app: App) -> axum::Router {
    let door = Door {
        app: app.clone(),
        known: Arc::default(),
        turn: Arc::new(Semaphore::new(1)),
        downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
    };
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
    let root = door.root(&found.record).await.ok_or_else(|| nothing(uri.path()))?;
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
        let roots: Vec<_> = all.iter().map(|found| self.summed(&found.record)).collect();
        let deadline = Instant::now() + SUMS_PATIENCE;
        let mut offers = vec![];
        for (found, root) in all.iter().zip(roots) {
            if let Ok(Some(root)) = tokio::time::timeout_at(deadline, told(root)).await {
                offers.push(offer_of(&found.record, &root));
            }
        }
        self.known().retain(|id, _| all.iter().any(|found| found.record.meta.id == *id));
        offers
    }

    /// An image's files. `None` for one that cannot be read.
    async fn root(&self, image: &Image) -> Summed {
        told(self.summed(image)).await
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ImageId, watch::Receiver<Option<Summed>>>> {
        // Entries are put in whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where an image's files will be told. The first who asks has the root read, in a task of its own: a large one takes
    /// longer than a client waits, and is read once, whoever goes meanwhile.
    fn summed(&self, image: &Image) -> watch::Receiver<Option<Summed>> {
        let mut known = self.known();
        if let Some(root) = known.get(&image.meta.id) {
            return root.clone();
        }
        let (tell, root) = watch::channel(None);
        known.insert(image.meta.id, root.clone());
        let (app, turn, image) = (self.app.clone(), Arc::clone(&self.turn), image.clone());
        self.app.tasks().spawn(async move {
            let work = async {
                let _turn = turn.acquire().await;
                app.streams().offer_root(&image, offer::metadata(&image)).await
            };
            let done = tokio::select! {
                () = app.stopping().cancelled() => return,
                done = work => done,
            };
            if let Err(error) = &done {
                let (image, why) = (&image.meta.name, &error.message);
                tracing::warn!(%image, why, "a public image cannot be offered");
            }
            let _ = tell.send(Some(done.ok().map(Arc::new)));
        });
        root
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
            proof: Proof::Peer,
        };
        let (head, body) = give(&self.app, &anyone, image, headers).await?.into_parts();
        // The place is taken as long as the bytes are on their way.
        let (pieces, waiting) = mpsc::channel(PIECES_MAX);
        let stopping = self.app.stopping().clone();
        self.app.tasks().spawn(async move {
            let _place = place;
            let mut bytes = body.into_data_stream();
            let sent = async {
                while let Some(piece) = bytes.next().await {
                    // A client that takes nothing has its place taken from it, and what it gets ends before its end.
                    if !matches!(tokio::time::timeout(STALL_TIMEOUT, pieces.send(piece)).await, Ok(Ok(()))) {
                        return;
                    }
                }
            };
            stopping.run_until_cancelled(sent).await;
        });
        let bytes = stream::unfold(waiting, async |mut waiting| Some((waiting.recv().await?, waiting)));
        Ok(Response::from_parts(head, Body::from_stream(bytes)))
    }
}

async fn told(mut root: watch::Receiver<Option<Summed>>) -> Summed {
    let told = root.wait_for(Option::is_some).await;
    told.ok().and_then(|told| told.clone().flatten())
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
