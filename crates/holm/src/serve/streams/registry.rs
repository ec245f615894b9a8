//! Registries: from the door's words to the node's.

use super::{NodeStreams, refused};
use api::streams::{PushStep, RegistryLogin};
use control::Error;
use model::{
    error::Code,
    id::ImageId,
    image::{ImageContent, Reach},
    image_reference::Reference,
};
use node::image::{lent, registry::Credentials};
use tokio::sync::mpsc;

/// Steps on their way to a client.
const STEPS_MAX: usize = 64;

fn credentials(login: RegistryLogin) -> Credentials {
    Credentials { user: login.user, password: login.password }
}

impl NodeStreams {
    pub(super) fn lend(&self, image: ImageId, login: RegistryLogin) -> Result<(), Error> {
        if self.images.lend(image, credentials(login)) {
            return Ok(());
        }
        Err(Error::new(Code::TooMany, "too many images are pulled with credentials").hint("try again later"))
    }

    pub(super) async fn ask_registry(
        &self,
        registry: &str,
        login: RegistryLogin,
        reach: Reach,
    ) -> Result<(), Error> {
        self.images.check_login(registry, &credentials(login), reach).await.map_err(refused)
    }

    pub(super) async fn push_image(
        &self,
        content: &ImageContent,
        reference: &Reference,
        login: Option<RegistryLogin>,
        reach: Reach,
    ) -> Result<mpsc::Receiver<PushStep>, Error> {
        let pushed = self.images.push(content, reference.clone(), login.map(credentials), reach).await;
        let mut steps = pushed.map_err(refused)?;
        let (sender, receiver) = mpsc::channel(STEPS_MAX);
        // Ends with the push, or with its client.
        tokio::spawn(async move {
            while let Some(step) = steps.recv().await {
                let step = match step {
                    lent::PushStep::Blob(digest) => PushStep::Blob(digest.to_string()),
                    lent::PushStep::Done { digest, size_bytes } => {
                        PushStep::Done { digest: digest.to_string(), size_bytes }
                    }
                    lent::PushStep::Failed(fault) => PushStep::Failed(fault),
                };
                if sender.send(step).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}
