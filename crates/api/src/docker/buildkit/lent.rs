//! What a session lends: credentials of registries, and secrets. Neither is kept, logged or written.

use super::{
    grpc::Code,
    session::Session,
    wire::{CredentialsRequest, CredentialsResponse, SecretRequest, SecretResponse},
};
use crate::{
    docker::image::given_login,
    error::{Failure, Result},
    streams::RegistryLogin,
};
use model::{
    error::Code as Kind,
    image_reference::{DEFAULT_REGISTRY, Reference},
};

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
/// What Docker Hub's registry is called where clients are asked for credentials.
const HUB: &str = "registry-1.docker.io";

impl Session {
    /// Credentials for an image's registry, if the client has some.
    ///
    /// # Errors
    /// The client's own.
    pub async fn login(&self, reference: &Reference) -> Result<Option<RegistryLogin>> {
        if !self.serves(CREDENTIALS) {
            return Ok(None);
        }
        let host = if reference.registry() == DEFAULT_REGISTRY { HUB } else { reference.registry() };
        let asked = CredentialsRequest { host: host.to_string() };
        let given: CredentialsResponse = match self.call(CREDENTIALS, &asked).await {
            Ok(given) => given,
            Err(status) if status.code == Code::Unimplemented => return Ok(None),
            Err(status) => return Err(status.failure()),
        };
        // A token without a name is for registries that give tokens; it is no password.
        Ok(given_login(given.user, given.secret))
    }

    /// A secret by its id; `None` if the client has none of it.
    ///
    /// # Errors
    /// The client's own.
    pub async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>> {
        if !self.serves(SECRET) {
            return Ok(None);
        }
        let given = self.call::<SecretResponse>(SECRET, &SecretRequest { id: id.to_string() }).await;
        match given {
            Ok(given) => Ok(Some(given.data)),
            Err(status) if status.code == Code::NotFound => Ok(None),
            Err(status) => Err(Failure::new(Kind::Invalid, format!("secret {id:.100}: {}", status.message))),
        }
    }
}
