//! Manifests and blobs from one place, with tries, ranges and checks.

use super::{Registry, RegistryError, connection::Answer, request::Place};
use crate::image::{
    blobs::{Begin, BlobError, BlobStore, BlobWriter},
    holder::Holder,
};
use http_body_util::BodyExt;
use hyper::{
    Method, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};
use model::{
    image_digest::Digest,
    image_manifest::{INDEX_TYPES, MANIFEST_BYTES_MAX, MANIFEST_TYPES},
};
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(20);
/// Tries of one blob altogether, progress or not.
const TRIES_TOTAL_MAX: u32 = 100;

/// What becomes of a blob, for whoever shows it.
#[derive(Debug, Clone, Copy)]
pub(super) enum BlobEvent<'a> {
    /// It was here already.
    Present,
    /// So many bytes are here now.
    Bytes(u64),
    /// It broke; another try follows after a wait.
    Retry(&'a RegistryError),
    /// Complete and checked.
    Done,
}

/// A manifest or index as the registry sent it.
#[derive(Debug, Clone)]
pub(super) struct FetchedManifest {
    pub(super) digest: Digest,
    pub(super) media_type: Option<String>,
    pub(super) content: Vec<u8>,
}

/// A blob to fetch, and its name in messages.
pub(super) struct Wanted {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    pub(super) what: String,
}

impl Registry {
    /// The digest that a tag stands for now, if the registry says it without sending the manifest. Docker Hub does
    /// not count this as a pull.
    pub(super) async fn resolve_digest(
        &self,
        place: &Place,
        name: &str,
        tell: impl Fn(&RegistryError),
    ) -> Result<Option<Digest>, RegistryError> {
        let rest = format!("manifests/{name}");
        let answer = self.try_often(place, Method::HEAD, &rest, &accept(), tell).await?;
        Ok(content_digest(&answer))
    }

    /// The manifest or index that a tag or digest names, checked.
    pub(super) async fn fetch_manifest(
        &self,
        place: &Place,
        name: &str,
        tell: impl Fn(&RegistryError),
    ) -> Result<FetchedManifest, RegistryError> {
        let rest = format!("manifests/{name}");
        let answer = self.try_often(place, Method::GET, &rest, &accept(), tell).await?;
        let stated = content_digest(&answer);
        let media_type = answer.response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|v| v.to_str().ok()).and_then(|v| v.split(';').next());
        let media_type = media_type.map(|text| text.trim().to_string());
        let host = place.host();
        let content = self.read_body(&host, "the manifest", answer, MANIFEST_BYTES_MAX).await?;
        let actual = Digest::of(&content);
        if let Some(expected) = name.parse().ok().or(stated)
            && expected != actual
        {
            return Err(RegistryError::ManifestDigest { host, expected, actual });
        }
        Ok(FetchedManifest { digest: actual, media_type, content })
    }

    /// A request that is repeated while it fails in a passing way; each failure that is not the last is told.
    async fn try_often(
        &self,
        place: &Place,
        method: Method,
        rest: &str,
        headers: &HeaderMap,
        tell: impl Fn(&RegistryError),
    ) -> Result<Answer, RegistryError> {
        let mut failures = 0;
        loop {
            let error = match self.get(place, method.clone(), rest, headers).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            failures += 1;
            let Some(wait) = self.wait_after(&error, failures) else { return Err(error) };
            tell(&error);
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait before the next try; `None` when there should be none.
    fn wait_after(&self, error: &RegistryError, failures: u32) -> Option<Duration> {
        if failures >= self.settings.tries_max {
            return None;
        }
        match error {
            RegistryError::RateLimited { retry_after_s, .. } => {
                retry_after_s.map(Duration::from_secs).filter(|wait| *wait <= self.settings.retry_after_max)
            }
            error if error.is_passing() => {
                let doubled = self.settings.backoff.saturating_mul(1 << (failures - 1).min(16));
                Some(doubled.min(BACKOFF_MAX))
            }
            _ => None,
        }
    }

    /// Brings one blob into the store, unless it is here for this project. A try that breaks goes on where it stopped, as long as it gets further.
    pub(super) async fn fetch_blob(
        &self,
        place: &Place,
        (blobs, holder): (&BlobStore, &Holder),
        wanted: &Wanted,
        tell: impl Fn(BlobEvent<'_>),
    ) -> Result<(), RegistryError> {
        let mut writer = match blobs.begin(wanted.digest, wanted.size_bytes).await? {
            Begin::Present(_) if holder.holds(&wanted.digest) => {
                tell(BlobEvent::Present);
                return Ok(());
            }
            Begin::Present(_) => blobs.begin_anew(wanted.digest, wanted.size_bytes).await?,
            Begin::Write(writer) => writer,
        };
        let mut failures = 0;
        for _ in 0..TRIES_TOTAL_MAX {
            let before = writer.offset();
            let error = match self.try_blob(place, &mut writer, wanted, &tell).await {
                Ok(()) => {
                    holder.note(&wanted.digest);
                    tell(BlobEvent::Done);
                    return Ok(());
                }
                Err(error) => error,
            };
            // What came stays, whatever went wrong after it.
            writer.flush().await?;
            // A resumed blob of the wrong digest may be the fault of what an earlier try left: once more from scratch.
            if matches!(error, RegistryError::BlobDigest { .. }) && before > 0 {
                continue;
            }
            failures = if writer.offset() > before { 1 } else { failures + 1 };
            let Some(wait) = self.wait_after(&error, failures) else { return Err(error) };
            tell(BlobEvent::Retry(&error));
            tokio::time::sleep(wait).await;
        }
        Err(RegistryError::Cut {
            host: place.host(),
            got_bytes: writer.offset(),
            size_bytes: wanted.size_bytes,
        })
    }

    async fn try_blob(
        &self,
        place: &Place,
        writer: &mut BlobWriter,
        wanted: &Wanted,
        tell: &impl Fn(BlobEvent<'_>),
    ) -> Result<(), RegistryError> {
        let host = place.host();
        if writer.offset() < wanted.size_bytes {
            let mut headers = HeaderMap::new();
            if writer.offset() > 0 {
                let range = HeaderValue::from_str(&format!("bytes={}-", writer.offset()));
                headers.insert(header::RANGE, range.expect("digits are a header"));
            }
            let answer = self.get(place, Method::GET, &format!("blobs/{}", wanted.digest), &headers).await?;
            if !goes_on(&answer, writer.offset()) {
                writer.restart().await?;
            }
            if answer.response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                return Err(RegistryError::Cut { host, got_bytes: 0, size_bytes: wanted.size_bytes });
            }
            self.copy_body(&host, answer, writer, wanted, tell).await?;
        }
        match writer.finish().await {
            Ok(_) => Ok(()),
            Err(BlobError::Mismatch { expected, actual }) => {
                Err(RegistryError::BlobDigest { host, what: wanted.what.clone(), expected, actual })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn copy_body(
        &self,
        host: &str,
        mut answer: Answer,
        writer: &mut BlobWriter,
        wanted: &Wanted,
        tell: &impl Fn(BlobEvent<'_>),
    ) -> Result<(), RegistryError> {
        let idle = self.settings.idle_timeout;
        let stalled = || RegistryError::Timeout {
            host: host.to_string(),
            phase: "send enough of the blob",
            after: idle,
        };
        let (mut window_start, mut window_bytes) = (Instant::now(), 0u64);
        loop {
            let frame = tokio::time::timeout(idle, answer.response.body_mut().frame())
                .await
                .map_err(|_| stalled())?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|source| RegistryError::Http { host: host.to_string(), source })?;
            let Ok(data) = frame.into_data() else { continue };
            if writer.offset() + data.len() as u64 > wanted.size_bytes {
                let what = wanted.what.clone();
                return Err(RegistryError::TooLarge {
                    host: host.to_string(),
                    what,
                    size_bytes_max: wanted.size_bytes,
                });
            }
            writer.write(&data).await?;
            tell(BlobEvent::Bytes(writer.offset()));
            // A byte now and then must not hold a place for ever.
            window_bytes += data.len() as u64;
            if window_start.elapsed() >= idle {
                if window_bytes < self.settings.idle_bytes_min {
                    return Err(stalled());
                }
                (window_start, window_bytes) = (Instant::now(), 0);
            }
        }
        if writer.offset() < wanted.size_bytes {
            let (got_bytes, size_bytes) = (writer.offset(), wanted.size_bytes);
            return Err(RegistryError::Cut { host: host.to_string(), got_bytes, size_bytes });
        }
        Ok(())
    }
}

fn accept() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for media_type in INDEX_TYPES.iter().chain(&MANIFEST_TYPES) {
        headers.append(header::ACCEPT, HeaderValue::from_static(media_type));
    }
    headers
}

fn content_digest(answer: &Answer) -> Option<Digest> {
    answer.response.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// Whether the answer is the part of the blob that was asked for.
fn goes_on(answer: &Answer, offset: u64) -> bool {
    if offset == 0 {
        return true;
    }
    let range = answer.response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    answer.response.status() == StatusCode::PARTIAL_CONTENT && start == Some(offset)
}
