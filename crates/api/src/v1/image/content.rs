//! An image's bytes: taken streamed, bounded, and checked against what the client promised; given back as they were
//! sent.
//!
//! The reader that the node is given fails at the end if anything is not as promised, so a node that keeps nothing
//! of a failed read cannot keep a wrong image.

use crate::{
    app::{App, Asker},
    client::SHA256_HEADER,
    error::{Failure, Result},
    limits::{IMAGE_BYTES_MAX, UPLOAD_STALL_TIMEOUT},
    streams::{Download, Upload},
    v1::{
        audit::{deed, note},
        routes::{Doc, Routes},
        served::answer,
        types::{image::Image as View, list::WaitQuery},
    },
};
use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use control::{Caller, Error, Role};
use futures::{Stream, StreamExt, stream};
use model::{error::Code, image::Image};
use sha2::{Digest, Sha256};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{io::AsyncReadExt, time::timeout};
use tokio_util::io::{ReaderStream, StreamReader};

/// Bytes read at a time on the way out.
const CHUNK_BYTES: usize = 256 * 1024;

/// Adds the routes of images' bytes.
pub fn routes(routes: Routes) -> Routes {
    let tag = "images";
    let checked = "The header `x-content-sha256` (64 hex digits), where given, is checked: bytes that differ are refused and nothing is kept.";
    routes
        .add(
            Method::PUT,
            "/v1/images/{ref}/content",
            tag,
            Doc::new("Send an image's bytes")
                .details(checked)
                .bytes_in()
                .answer::<View>(200, "The image, ready or with its fault."),
            upload,
        )
        .add(
            Method::GET,
            "/v1/images/{ref}/content",
            tag,
            Doc::new("Get an image's bytes")
                .details("As they were sent; what came from a registry comes as an OCI layout in a tar, which `docker load` reads. One range may be asked for.")
                .bytes_out(200, "application/octet-stream", "The bytes.")
                .bytes_out(206, "application/octet-stream", "The range."),
            download,
        )
        .add(
            Method::PUT,
            "/v1/images/{ref}/stage",
            tag,
            Doc::new("Lay an image's bytes ready")
                .details("Nothing looks at them until they are imported.")
                .bytes_in()
                .answer::<View>(200, "The image."),
            stage,
        )
}

async fn upload(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    request: Request,
) -> Result<Response> {
    let taken = take(&app, &caller, &reference, request, Way::Upload).await;
    let image = note(&app, &caller, deed("upload", "image", &reference), taken).await?;
    answer(&app, &caller, StatusCode::OK, &image, &WaitQuery::default()).await
}

async fn stage(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    request: Request,
) -> Result<Response> {
    let taken = take(&app, &caller, &reference, request, Way::Stage).await;
    let image = note(&app, &caller, deed("stage", "image", &reference), taken).await?;
    answer(&app, &caller, StatusCode::OK, &image, &WaitQuery::default()).await
}

/// What becomes of bytes that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// An image, at once.
    Upload,
    /// They lie ready.
    Stage,
}

/// Takes an image's bytes, for every door.
///
/// # Errors
/// As control and the node refuse, and what is wrong with the bytes.
pub(crate) async fn take(
    app: &App,
    caller: &Caller,
    reference: &str,
    request: Request,
    way: Way,
) -> control::Result<Image> {
    let image = app.control().expect_upload(caller, reference).await?;
    let promise = Promise::read(request.headers())?;
    let why = Arc::new(Mutex::new(None));
    let upload = Upload {
        size_bytes: promise.size_bytes,
        sha256: promise.sha256.clone(),
        body: Box::new(StreamReader::new(Box::pin(checked(request.into_body(), promise, Arc::clone(&why))))),
    };
    let outcome = match way {
        Way::Upload => app.streams().upload(&image, upload).await,
        Way::Stage => app.streams().stage(&image, upload).await,
    };
    // What the reader found is the cause; what the node says of it is only that reading failed.
    let cause = why.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (outcome, cause) {
        (Ok(()), _) => Ok(image),
        (Err(_), Some(cause)) => Err(cause),
        (Err(error), None) => Err(error),
    }
}

async fn download(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let found = app.control().find::<Image>(&caller, &reference)?;
    give(&app, &caller, &found.record, &headers).await
}

/// Gives nobody but admins an image that was withdrawn, by whatever door.
///
/// # Errors
/// `forbidden`.
pub(crate) fn refuse_withdrawn(caller: &Caller, image: &Image) -> Result<()> {
    if image.deactivated && caller.role != Role::Admin {
        let message = format!("image {} is deactivated", image.meta.name);
        return Err(Failure::new(Code::Forbidden, message).hint("only an admin gets its bytes now"));
    }
    Ok(())
}

/// Gives an image's bytes, or the one range of them that the headers ask for.
///
/// # Errors
/// `forbidden` for an image that is deactivated (admins get it all the same), `conflict` for one without content.
pub(crate) async fn give(app: &App, caller: &Caller, image: &Image, headers: &HeaderMap) -> Result<Response> {
    refuse_withdrawn(caller, image)?;
    let status = app.control().image_status(image.meta.id);
    let Some(size) = status.as_ref().and_then(|s| s.record.content()).map(|content| content.size_bytes)
    else {
        return Err(Failure::new(Code::Conflict, format!("image {} has no content yet", image.meta.name)));
    };
    let range = asked_range(headers);
    let offset = match range {
        Some((from, _)) if from < size => from,
        Some(_) => {
            return Err(Failure::new(Code::Invalid, format!("the image has {size} bytes"))
                .with_status(StatusCode::RANGE_NOT_SATISFIABLE));
        }
        None => 0,
    };
    let Download { size_bytes, body } = app.streams().download(image, offset).await?;
    let (Some(size), Some((from, to))) = (size_bytes, range) else {
        let mut response = Response::new(Body::from_stream(ReaderStream::with_capacity(body, CHUNK_BYTES)));
        describe(&mut response, size_bytes);
        return Ok(response);
    };
    let last = to.unwrap_or(size - 1).min(size - 1);
    let length = last + 1 - from;
    let part = ReaderStream::with_capacity(body.take(length), CHUNK_BYTES);
    let mut response = Response::new(Body::from_stream(part));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    describe(&mut response, Some(length));
    if let Ok(value) = HeaderValue::from_str(&format!("bytes {from}-{last}/{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

fn describe(response: &mut Response, length: Option<u64>) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// The one range that is asked for (RFC 9110, 14.2): first byte and last. Other forms ask for everything.
fn asked_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(header::RANGE)?.to_str().ok()?.trim().strip_prefix("bytes=")?;
    let (from, to) = text.split_once('-')?;
    let from = from.parse().ok()?;
    let to = if to.is_empty() { None } else { Some(to.parse().ok()?) };
    to.is_none_or(|to| to >= from).then_some((from, to))
}

/// What the client says of the bytes.
#[derive(Debug, Clone, Default)]
struct Promise {
    size_bytes: Option<u64>,
    sha256: Option<String>,
}

impl Promise {
    fn read(headers: &HeaderMap) -> control::Result<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let size_bytes = text(header::CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok());
        if size_bytes.is_some_and(|size| size > IMAGE_BYTES_MAX) {
            return Err(too_large());
        }
        let sha256 =
            text(SHA256_HEADER).map(|digest| digest.trim_start_matches("sha256:").to_ascii_lowercase());
        if sha256.as_ref().is_some_and(|digest| digest.len() != 64 || hex::decode(digest).is_err()) {
            return Err(Error::invalid(SHA256_HEADER, "the SHA-256 must have 64 hex digits"));
        }
        Ok(Self { size_bytes, sha256 })
    }
}

fn too_large() -> Error {
    Error::new(Code::TooLarge, format!("an image has at most {IMAGE_BYTES_MAX} bytes"))
}

struct Incoming {
    chunks: axum::body::BodyDataStream,
    promise: Promise,
    hasher: Sha256,
    done: u64,
    ended: bool,
}

/// The body's bytes; fails where they are not as promised, and says why in `why`.
fn checked(
    body: Body,
    promise: Promise,
    why: Arc<Mutex<Option<Error>>>,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let incoming =
        Incoming { chunks: body.into_data_stream(), promise, hasher: Sha256::new(), done: 0, ended: false };
    stream::try_unfold((incoming, why), |(mut incoming, why)| async move {
        match incoming.next().await {
            Ok(Some(chunk)) => Ok(Some((chunk, (incoming, why)))),
            Ok(None) => Ok(None),
            Err(error) => {
                let told = io::Error::new(io::ErrorKind::InvalidData, error.message.clone());
                *why.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(told)
            }
        }
    })
}

impl Incoming {
    async fn next(&mut self) -> control::Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        let chunk = timeout(UPLOAD_STALL_TIMEOUT, self.chunks.next()).await.map_err(|_| {
            let message = format!("no byte came for {} s", UPLOAD_STALL_TIMEOUT.as_secs());
            Error::new(Code::Timeout, message).hint("send the image again")
        })?;
        match chunk {
            Some(Ok(bytes)) => {
                self.done += bytes.len() as u64;
                if self.done > IMAGE_BYTES_MAX {
                    return Err(too_large());
                }
                self.hasher.update(&bytes);
                Ok(Some(bytes))
            }
            Some(Err(error)) => Err(Error::new(Code::Invalid, format!("the body broke off: {error}"))
                .hint("send the image again")),
            None => {
                self.ended = true;
                self.check()?;
                Ok(None)
            }
        }
    }

    fn check(&mut self) -> control::Result<()> {
        if let Some(size) = self.promise.size_bytes.filter(|size| *size != self.done) {
            let message = format!("{} bytes came, {size} were promised", self.done);
            return Err(Error::new(Code::Invalid, message).hint("send the image again"));
        }
        let came = hex::encode(std::mem::take(&mut self.hasher).finalize());
        match &self.promise.sha256 {
            Some(promised) if *promised != came => {
                let message = format!("the bytes have SHA-256 {came}, {promised} was promised");
                Err(Error::invalid(SHA256_HEADER, message).hint("the file changed on its way; send it again"))
            }
            _ => Ok(()),
        }
    }
}
