//! Credentials for one pull, push or question: kept in memory, never written, never told, and forgotten with the work.

use super::{
    reconcile::Images,
    registry::{Credentials, RegistryError},
    upload::fault,
};
use crate::instance::sentence;
use model::{
    error::Fault,
    id::ImageId,
    image::{ImageContent, Reach},
    image_digest::Digest,
    image_reference::Reference,
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How long credentials wait for a pull that goes on: a registry that is away for a while is asked again with them.
const LENT_FOR: Duration = Duration::from_secs(3600);
/// Most pulls with credentials at a time.
const LENT_MAX: usize = 256;
/// Blobs that are told of and not heard yet.
const STEPS_MAX: usize = 64;

/// Credentials by the image that is pulled with them.
#[derive(Default)]
pub(super) struct Lent(Mutex<HashMap<ImageId, (Credentials, Instant)>>);

impl Lent {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ImageId, (Credentials, Instant)>> {
        // The map is whole at every moment, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: ImageId) -> Option<Credentials> {
        let mut all = self.lock();
        all.retain(|_, (_, until)| Instant::now() < *until);
        all.get(&id).map(|(credentials, _)| credentials.clone())
    }

    pub(super) fn forget(&self, id: ImageId) {
        self.lock().remove(&id);
    }

    fn put(&self, id: ImageId, credentials: Credentials) -> bool {
        let mut all = self.lock();
        all.retain(|_, (_, until)| Instant::now() < *until);
        if all.len() >= LENT_MAX && !all.contains_key(&id) {
            return false;
        }
        all.insert(id, (credentials, Instant::now() + LENT_FOR));
        true
    }
}

/// A step of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushStep {
    /// A blob is there.
    Blob(Digest),
    /// The image is there, and can be pulled by this digest.
    Done {
        /// Of the manifest.
        digest: Digest,
        /// Its bytes.
        size_bytes: u64,
    },
    /// It is not.
    Failed(Fault),
}

fn told(reference: &str, verb: &str, error: &RegistryError) -> Fault {
    fault(error.code(), format!("{reference} could not be {verb}: {}", sentence(error)), error.hint())
}

impl Images {
    /// Lends credentials to the next pull of an image. False when too many pulls have some.
    pub fn lend(&self, id: ImageId, credentials: Credentials) -> bool {
        self.lent.put(id, credentials)
    }

    /// Forgets credentials whose pull does not come.
    pub fn take_back(&self, id: ImageId) {
        self.lent.forget(id);
    }

    /// Whether a registry within reach of who asks knows a user.
    ///
    /// # Errors
    /// `forbidden` if not, or why the registry cannot be asked.
    pub async fn check_login(
        &self,
        registry: &str,
        credentials: &Credentials,
        reach: Reach,
    ) -> Result<(), Fault> {
        let asked = self.registry.for_one().reaching(reach).check_login(registry, credentials).await;
        asked.map_err(|error| fault(error.code(), sentence(&error), error.hint()))
    }

    /// Sends an image under a name to a registry within reach of who asks.
    ///
    /// # Errors
    /// The image is not whole. What the registry answers comes as steps.
    pub async fn push(
        &self,
        content: &ImageContent,
        reference: Reference,
        credentials: Option<Credentials>,
        reach: Reach,
    ) -> Result<mpsc::Receiver<PushStep>, Fault> {
        let image = self.stored(&content.digest).await?;
        let (steps, heard) = mpsc::channel(STEPS_MAX);
        let (registry, blobs) = (self.registry.for_one().reaching(reach), self.blobs.clone());
        let hold = self.collector.hold().await;
        tokio::spawn(async move {
            let _hold = hold;
            let tell = |digest| {
                // A client that does not read misses a line, and the push goes on.
                let _ = steps.try_send(PushStep::Blob(digest));
            };
            let push = registry.push(&blobs, &image, &reference, credentials.as_ref(), tell);
            let pushed = tokio::select! {
                pushed = push => pushed,
                // The client is gone: what was sent is no image, since its manifest goes last.
                () = steps.closed() => return,
            };
            let last = match pushed {
                Ok(digest) => {
                    let size_bytes = blobs.size_bytes(&digest).ok().flatten().unwrap_or(0);
                    PushStep::Done { digest, size_bytes }
                }
                Err(error) => PushStep::Failed(told(&reference.familiar(), "pushed", &error)),
            };
            let _ = steps.send(last).await;
        });
        Ok(heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_lent_to_so_many_and_forgotten() {
        let lent = Lent::default();
        let id = |n: u16| ImageId(uuid::Uuid::from_u128(n.into()));
        let someone = Credentials { user: "me".into(), password: "open sesame".into() };
        for n in 0..LENT_MAX as u16 {
            assert!(lent.put(id(n), someone.clone()));
        }
        assert!(!lent.put(id(1000), someone.clone()) && lent.put(id(0), someone.clone()));
        assert_eq!(lent.get(id(0)), Some(someone.clone()));
        lent.forget(id(0));
        assert_eq!(lent.get(id(0)), None);
        assert!(!format!("{someone:?}").contains("sesame"), "a password is never printed");
    }
}
