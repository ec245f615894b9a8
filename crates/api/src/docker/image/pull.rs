//! Pulling: asked of the cloud like on every door, and told as lines of JSON while it goes on.

use super::{
    found::{Local, parse},
    login::of_header,
    named::ready,
};
use crate::{
    docker::{door::Door, query::Query, refusal::not_honoured, watch::Touches},
    error::{Failure, Result},
    streams::RegistryLogin,
    v1::audit::{deed, note},
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use control::{Caller, image::NewImage};
use model::{
    error::{Code, Fault},
    id::ImageId,
    image::{Image, ImageContent, ImageState},
    image_reference::Reference,
};
use serde_json::{Value, json};
use std::{convert::Infallible, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// How long an answer waits for the registry's first word, so that a refusal is an error and not a line.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// How often a pull is looked at that says nothing by itself.
const LOOK: Duration = Duration::from_secs(5);
/// Lines that wait for a slow client.
const LINES_MAX: usize = 64;

/// POST of a pull.
pub async fn create(door: Door, caller: Caller, query: &Query, headers: &HeaderMap) -> Result<Response> {
    let name = query.text("fromImage").ok_or_else(|| Failure::new(Code::Invalid, "fromImage is missing"))?;
    let reference = asked(name, query.text("tag"))?;
    check_platform(query.text("platform"))?;
    begin(door, caller, reference, of_header(headers)?).await?.answer().await
}

/// Pulls an image that something else needs, and tells how it goes where somebody hears it.
///
/// # Errors
/// Why it cannot be had.
pub async fn fetch(
    door: &Door,
    caller: &Caller,
    reference: &Reference,
    login: Option<RegistryLogin>,
    lines: Option<&mpsc::Sender<Value>>,
) -> Result<Local> {
    let pull = begin(door.clone(), caller.clone(), reference.clone(), login).await?;
    let mut touches = Touches::of(door, pull.id.to_string());
    match pull.watch(&mut touches, lines).await {
        Some(Ok(_)) => ready(door, pull.id).await,
        Some(Err(fault)) => {
            pull.forget().await;
            Err(pull.refusal(&fault))
        }
        None => Err(Failure::new(Code::Conflict, "nobody waits for the pull any more")),
    }
}

/// Asks for an image.
async fn begin(
    door: Door,
    caller: Caller,
    reference: Reference,
    login: Option<RegistryLogin>,
) -> Result<Pull> {
    let before = known(&door, &caller, &reference);
    let old = before.as_ref().and_then(|image| content(&door, image.meta.id));
    // Chosen here, so that the credentials are there before the pull begins.
    let id = before.as_ref().map_or_else(|| ImageId::from_random(rand::random()), |image| image.meta.id);
    let loan = login.map(|login| Loan::of(&door, id, login)).transpose()?;
    let new = NewImage { id: Some(id), ..NewImage::from_registry(&reference.to_string()) };
    let outcome = door.control().create_image(&caller, new).await;
    let text = reference.familiar();
    let image = note(door.app(), &caller, deed("create", "image", &text), outcome).await?;
    // From here on the pull has them, and forgets them with its end.
    loan.into_iter().for_each(Loan::leave);
    let (id, asked, is_new) = (image.meta.id, image.asked, before.is_none());
    Ok(Pull { door, caller, reference, id, asked, is_new, old })
}

/// Credentials that were lent to a pull which is not yet asked for. They go with this, whatever happens, unless they are
/// left to it.
struct Loan {
    door: Door,
    image: Option<ImageId>,
}

impl Loan {
    fn of(door: &Door, image: ImageId, login: RegistryLogin) -> Result<Self> {
        door.app().streams().lend_login(image, login)?;
        Ok(Self { door: door.clone(), image: Some(image) })
    }

    fn leave(mut self) {
        self.image = None;
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(image) = self.image {
            self.door.app().streams().take_login_back(image);
        }
    }
}

/// The reference that a name and a tag (or digest) mean.
fn asked(name: &str, tag: Option<&str>) -> Result<Reference> {
    match tag {
        Some(digest) if digest.contains(':') => parse(&format!("{name}@{digest}")),
        // A tag in the name gives way to the one beside it.
        Some(tag) => {
            let named = parse(name)?;
            parse(&format!("{}/{}:{tag}", named.registry(), named.repository()))
        }
        None => parse(name),
    }
}

/// Refuses an image for other hosts than this one.
///
/// # Errors
/// `invalid`.
pub fn check_platform(platform: Option<&str>) -> Result<()> {
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let Some(asked) = platform.filter(|text| !text.is_empty()) else { return Ok(()) };
    let mut parts = asked.split('/');
    let fits = match (parts.next(), parts.next()) {
        (Some("linux"), None) => true,
        (Some("linux"), Some(arch)) => arch == own || arch == std::env::consts::ARCH,
        (Some(arch), None) => arch == own || arch == std::env::consts::ARCH,
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(not_honoured("platform", format!("{asked}: this cloud's hosts are linux/{own}")))
    }
}

fn known(door: &Door, caller: &Caller, reference: &Reference) -> Option<Image> {
    let all = door.control().list::<Image>(caller);
    let same =
        |image: &Image| image.meta.project == caller.project && image.reference().as_ref() == Some(reference);
    all.iter().find(|stored| same(&stored.record)).map(|stored| stored.record.clone())
}

fn content(door: &Door, id: ImageId) -> Option<ImageContent> {
    door.control().image_status(id)?.record.content().cloned()
}

/// A pull that goes on.
struct Pull {
    door: Door,
    caller: Caller,
    reference: Reference,
    id: ImageId,
    asked: u64,
    is_new: bool,
    old: Option<ImageContent>,
}

/// How far it is.
enum Look {
    Waiting,
    Fetching { done_bytes: u64, total_bytes: u64 },
    Done(ImageContent),
    Failed(Fault),
}

impl Pull {
    fn look(&self) -> Look {
        let control = self.door.control();
        let gone = || Fault {
            code: Code::NotFound,
            message: "the image was deleted while it was pulled".into(),
            hint: String::new(),
            since: control.now(),
        };
        let Some(stored) = control.get::<Image>(self.id) else { return Look::Failed(gone()) };
        let status = control.image_status(self.id);
        let status = status.as_deref().map(|stored| &stored.record);
        let answered = status.is_some_and(|status| status.asked >= self.asked);
        match stored.record.state(status) {
            ImageState::Failed(fault) => Look::Failed(fault.clone()),
            ImageState::Ready(content) if answered => match status.and_then(|status| status.stale.clone()) {
                Some(fault) => Look::Failed(fault),
                None => Look::Done(content.clone()),
            },
            // Before the registry has told the size it has told nothing.
            ImageState::Fetching { done_bytes, total_bytes } if *total_bytes > 0 => {
                Look::Fetching { done_bytes: *done_bytes, total_bytes: *total_bytes }
            }
            _ => Look::Waiting,
        }
    }

    async fn answer(self) -> Result<Response> {
        let mut touches = Touches::of(&self.door, self.id.to_string());
        let first_word = Instant::now() + FIRST_WORD;
        loop {
            match self.look() {
                Look::Failed(fault) => {
                    self.forget().await;
                    return Err(self.refusal(&fault));
                }
                Look::Fetching { .. } | Look::Done(_) => break,
                Look::Waiting => {}
            }
            if !touches.next(first_word).await {
                break;
            }
        }
        let (lines, queue) = mpsc::channel::<Value>(LINES_MAX);
        let stopping = self.door.app().stopping().clone();
        let tasks = self.door.app().tasks().clone();
        tasks.spawn(async move {
            tokio::select! {
                () = self.tell(touches, lines) => {}
                () = stopping.cancelled() => {}
            }
        });
        let body = futures::stream::unfold(queue, |mut queue| async move {
            let line = queue.recv().await?;
            Some((Ok::<_, Infallible>(Bytes::from(format!("{line}\r\n"))), queue))
        });
        let kind = HeaderValue::from_static("application/json");
        Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(body)).into_response())
    }

    /// Tells how it goes on until it has ended, or nobody listens any more: the pull goes on without.
    async fn tell(self, mut touches: Touches, lines: mpsc::Sender<Value>) {
        if let Some(Err(fault)) = self.watch(&mut touches, Some(&lines)).await {
            self.forget().await;
            let message = self.refusal(&fault).error.message;
            let _ = lines.send(json!({"errorDetail": {"message": message}, "error": message})).await;
        }
    }

    /// The same; gives how it ended, or `None` when nobody listens any more.
    async fn watch(
        &self,
        touches: &mut Touches,
        lines: Option<&mpsc::Sender<Value>>,
    ) -> Option<std::result::Result<ImageContent, Fault>> {
        let tag = self.reference.manifest_name();
        let mut said =
            vec![json!({"status": format!("Pulling from {}", self.shown_repository()), "id": tag})];
        let mut shown = None;
        loop {
            let mut outcome = None;
            match self.look() {
                Look::Waiting => {}
                Look::Fetching { done_bytes, total_bytes } => {
                    if shown.replace((done_bytes, total_bytes)) != Some((done_bytes, total_bytes)) {
                        said.push(progress(&tag, done_bytes, total_bytes));
                    }
                }
                Look::Done(content) => {
                    said.extend(self.done(&tag, &content));
                    outcome = Some(Ok(content));
                }
                Look::Failed(fault) => outcome = Some(Err(fault)),
            }
            for line in said.drain(..) {
                if let Some(lines) = lines {
                    lines.send(line).await.ok()?;
                }
            }
            if outcome.is_some() {
                return outcome;
            }
            touches.next(Instant::now() + LOOK).await;
        }
    }

    fn done(&self, tag: &str, content: &ImageContent) -> Vec<Value> {
        let is_same = self.old.as_ref().is_some_and(|old| old.digest == content.digest);
        let text = self.reference.familiar();
        let last = if is_same {
            format!("Status: Image is up to date for {text}")
        } else {
            format!("Status: Downloaded newer image for {text}")
        };
        let mut lines = vec![];
        if !is_same {
            lines.push(json!({"status": "Pull complete", "progressDetail": {}, "id": tag}));
        }
        lines.push(json!({"status": format!("Digest: {}", content.digest)}));
        lines.push(json!({"status": last}));
        lines
    }

    fn shown_repository(&self) -> &str {
        self.reference.repository()
    }

    /// A pull that failed leaves nothing behind that was not there before.
    async fn forget(&self) {
        if !self.is_new {
            return;
        }
        if let Err(error) = self.door.control().delete_image(&self.caller, &self.id.to_string()).await {
            tracing::debug!(%error, "an image that could not be pulled is left");
        }
    }

    fn refusal(&self, fault: &Fault) -> Failure {
        let text = self.reference.familiar();
        match fault.code {
            Code::NotFound => Failure::new(
                Code::NotFound,
                format!("manifest for {text} not found: manifest unknown: {}", fault.message),
            ),
            Code::Unauthenticated | Code::Forbidden => Failure::new(
                Code::NotFound,
                format!(
                    "pull access denied for {}, repository does not exist or may require 'docker login': {}",
                    self.reference.familiar_name(),
                    fault.message
                ),
            ),
            _ => crate::docker::refusal::failed(&fault.message),
        }
        .hint(&fault.hint)
    }
}

/// A bar that the client draws by itself.
fn progress(id: &str, done: u64, total: u64) -> Value {
    json!({"status": "Downloading", "progressDetail": {"current": done, "total": total}, "id": id})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags_are_joined() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, tag, wanted) in [
            ("busybox", Some("latest"), "docker.io/library/busybox:latest".to_string()),
            ("busybox", None, "docker.io/library/busybox:latest".into()),
            ("localhost:5000/a/b", Some("1"), "localhost:5000/a/b:1".into()),
            ("busybox", Some(digest.as_str()), format!("docker.io/library/busybox@{digest}")),
        ] {
            assert_eq!(asked(name, tag).unwrap().to_string(), wanted);
        }
        assert!(
            asked("Busybox", Some("latest"))
                .unwrap_err()
                .error
                .message
                .starts_with("invalid reference format")
        );
    }

    #[test]
    fn other_platforms_are_refused() {
        let own = format!("linux/{}", std::env::consts::ARCH);
        assert!(
            check_platform(None).is_ok()
                && check_platform(Some("")).is_ok()
                && check_platform(Some(&own)).is_ok()
        );
        assert!(
            check_platform(Some("windows/amd64")).is_err() && check_platform(Some("linux/s390x")).is_err()
        );
    }
}
