//! Whether a registry knows a user, and clients that are one user's alone.

use super::{
    Credentials, Registry, RegistryError,
    auth::{self, Challenge},
    connection::empty,
    request::{Place, protocol},
};
use hyper::{
    Method, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};
use model::image_reference::Reference;
use std::{sync::Arc, time::Duration};

impl Registry {
    /// A client whose tokens nobody else gets, and that forgets them when it is dropped. For work with credentials.
    pub fn for_one(&self) -> Self {
        Self { tokens: Arc::default(), ..self.clone() }
    }

    /// Asks a registry (`docker.io`, `host:port`) whether it knows a user, at its root (OCI distribution specification,
    /// "Determining Support"). One that lets everybody in knows everybody.
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`], or why it cannot be asked.
    pub async fn check_login(&self, registry: &str, credentials: &Credentials) -> Result<(), RegistryError> {
        let reference = Reference::new(registry, "holm/login", Some("latest"), None);
        let reference = reference.map_err(|error| RegistryError::Setting {
            setting: registry.to_string(),
            reason: error.to_string(),
        })?;
        let place = self.origin(&reference, Some(credentials), "pull")?;
        let answer = self.ask_root(&place, None).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED {
            return self.judge(&place, answer).await;
        }
        let challenges = answer.response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = auth::parse_challenge(challenges.iter().filter_map(|value| value.to_str().ok()));
        let proof = match challenge {
            Some(Challenge::Basic) => auth::basic(credentials),
            Some(Challenge::Bearer { realm, service, .. }) => {
                self.fetch_token(&place, &auth::token_url(&realm, service.as_deref(), "")).await?.0
            }
            None => return Err(protocol(&place.base.authority, "it does not say how to log in")),
        };
        let answer = self.ask_root(&place, Some(&proof)).await?;
        self.judge(&place, answer).await
    }

    async fn ask_root(
        &self,
        place: &Place,
        proof: Option<&str>,
    ) -> Result<super::connection::Answer, RegistryError> {
        let to = &place.base.authority;
        let mut headers = HeaderMap::new();
        if let Some(proof) = proof {
            let value =
                HeaderValue::from_str(proof).map_err(|_| protocol(to, "the password is no header"))?;
            headers.insert(header::AUTHORIZATION, value);
        }
        let request = self.request(to, Method::GET, "/v2/", headers, empty())?;
        self.dialer.send(to, request, &self.guard(place, to), Duration::ZERO).await
    }

    async fn judge(&self, place: &Place, answer: super::connection::Answer) -> Result<(), RegistryError> {
        if answer.response.status().is_success() {
            return Ok(());
        }
        Err(self.refusal(place, "login", answer).await)
    }
}
