//! One request to one registry: its address, its token, its redirects, and its refusals in words.

use super::{
    Credentials, Registry, RegistryError,
    auth::{self, Challenge, TokenKey},
    connection::{Answer, Authority, Body, Guard, Scheme, empty, within},
};
use http_body_util::BodyExt;
use hyper::{
    Method, Request, StatusCode, Uri,
    header::{self, HeaderMap, HeaderValue},
};
use model::{image::Reach, image_reference::Reference};
use std::time::Duration;

/// Redirects that are followed.
const REDIRECTS_MAX: u32 = 5;
/// Bytes of a refusal or a token that are read.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// Characters of a registry's words that are shown.
const MESSAGE_CHARS_MAX: usize = 300;

/// Where a registry's API lives: its own host, or a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) authority: Authority,
    /// Before `/v2`, without a slash at its end.
    path: String,
}

impl Base {
    /// Reads a mirror's URL.
    pub(super) fn parse(url: &str) -> Result<Self, RegistryError> {
        let wrong =
            |reason: &str| RegistryError::Setting { setting: url.to_string(), reason: reason.to_string() };
        let uri: Uri = url.parse().map_err(|_| wrong("a mirror is a URL such as https://mirror.example"))?;
        if uri.query().is_some() {
            return Err(wrong("a mirror's URL has no query"));
        }
        let path = uri.path().trim_end_matches('/').trim_end_matches("/v2").to_string();
        let authority = authority_of(&uri).ok_or_else(|| wrong("it must start with https:// or http://"))?;
        Ok(Self { authority, path })
    }
}

pub(super) fn authority_of(uri: &Uri) -> Option<Authority> {
    let scheme = match uri.scheme_str()? {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return None,
    };
    let host = uri.host().filter(|host| !host.is_empty())?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let default = if scheme == Scheme::Https { 443 } else { 80 };
    Some(Authority { host, port: uri.port_u16().unwrap_or(default), scheme })
}

/// Whether the operator listed a host, with its port or for all of them.
fn is_listed(all: &[String], authority: &Authority) -> bool {
    let with_port = format!("{}:{}", authority.host, authority.port);
    all.iter().any(|listed| *listed == authority.host || *listed == with_port)
}

/// One image's repository at one place.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) base: Base,
    pub(super) repository: String,
    pub(super) credentials: Option<Credentials>,
    /// The operator's own choice, not the user's: a mirror.
    pub(super) is_mirror: bool,
    /// What a token is asked for: `pull` or `pull,push`.
    pub(super) actions: &'static str,
}

impl Place {
    pub(super) fn host(&self) -> String {
        self.base.authority.host_port()
    }

    fn url_path(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base.path, self.repository)
    }

    fn token_key(&self) -> TokenKey {
        let user = self.credentials.as_ref().map(|credentials| credentials.user.clone());
        (self.host(), format!("{}:{}", self.repository, self.actions), user)
    }
}

impl Registry {
    /// Mirrors first, then the registry itself. Credentials go to the registry alone.
    pub(super) fn places(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<Place>, RegistryError> {
        let repository = reference.repository().to_string();
        let mut places = Vec::new();
        for url in self.settings.mirrors.get(reference.registry()).into_iter().flatten() {
            let base = Base::parse(url)?;
            if base.authority.scheme == Scheme::Http && !self.may_be_plain(&base.authority) {
                let reason = "plain HTTP is for loopback and for registries listed as insecure".to_string();
                return Err(RegistryError::Setting { setting: url.clone(), reason });
            }
            let repository = repository.clone();
            places.push(Place { base, repository, credentials: None, is_mirror: true, actions: "pull" });
        }
        places.push(self.origin(reference, credentials, "pull")?);
        Ok(places)
    }

    /// The registry itself.
    pub(super) fn origin(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        actions: &'static str,
    ) -> Result<Place, RegistryError> {
        let host = reference.registry_host();
        let uri: Uri = format!("https://{host}/").parse().map_err(|_| RegistryError::Protocol {
            host: host.to_string(),
            reason: "its name is no host name".to_string(),
        })?;
        let mut authority = authority_of(&uri).ok_or_else(|| RegistryError::Protocol {
            host: host.to_string(),
            reason: "its name is no host name".to_string(),
        })?;
        if self.may_be_plain(&authority) {
            authority.scheme = Scheme::Either;
        }
        let base = Base { authority, path: String::new() };
        let repository = reference.repository().to_string();
        Ok(Place { base, repository, credentials: credentials.cloned(), is_mirror: false, actions })
    }

    fn may_be_plain(&self, authority: &Authority) -> bool {
        authority.is_loopback() || is_listed(&self.settings.insecure, authority)
    }

    /// Where a request may lead to that is made for the registry of `place`: to itself or, by a redirect, an upload's
    /// address or the realm of a token, to `to`. What is on loopback trusts its neighbours, so nothing there is called but
    /// what somebody chose who may, and what a registry names elsewhere is public or was listed.
    pub(super) fn guard(&self, place: &Place, to: &Authority) -> Guard {
        let first = &place.base.authority;
        let listed = is_listed(&self.settings.insecure, to) || is_listed(&self.settings.private, to);
        let is_chosen = place.is_mirror || self.reach == Reach::Anywhere;
        let is_same = (&to.host, to.port) == (&first.host, first.port);
        let from = first.host_port();
        match is_same {
            true if is_chosen || listed => Guard::Free,
            true => Guard::Public { from: None },
            false if first.is_loopback() && listed => Guard::Free,
            false if first.is_loopback() => Guard::Public { from: Some(from) },
            false if is_chosen || listed => Guard::NotHere { from },
            false => Guard::Public { from: Some(from) },
        }
    }

    /// Asks for `rest` of the repository, with a token if the registry wants one. Gives answers of 2xx and 416.
    pub(super) async fn get(
        &self,
        place: &Place,
        method: Method,
        rest: &str,
        headers: &HeaderMap,
    ) -> Result<Answer, RegistryError> {
        let key = place.token_key();
        let mut authorization = self.tokens.get(&key);
        // Once with what we have, once with a new token.
        for fresh in [false, true] {
            let answer = self.follow(place, &method, rest, headers, authorization.as_deref()).await?;
            let status = answer.response.status();
            if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(answer);
            }
            if status != StatusCode::UNAUTHORIZED || fresh {
                return Err(self.refusal(place, rest, answer).await);
            }
            self.tokens.forget(&key);
            authorization = Some(self.log_in(place, &answer).await?);
        }
        Err(unauthorized(place))
    }

    /// Sends the request and follows its redirects. Only the first host sees the authorization.
    async fn follow(
        &self,
        place: &Place,
        method: &Method,
        rest: &str,
        headers: &HeaderMap,
        authorization: Option<&str>,
    ) -> Result<Answer, RegistryError> {
        let first = &place.base.authority;
        let mut to = first.clone();
        let mut path = place.url_path(rest);
        for _ in 0..=REDIRECTS_MAX {
            let same_host = to == *first;
            let mut request_headers = headers.clone();
            if let Some(value) = authorization.filter(|_| same_host) {
                let value =
                    HeaderValue::from_str(value).map_err(|_| protocol(&to, "a token is no header"))?;
                request_headers.insert(header::AUTHORIZATION, value);
            }
            let request = self.request(&to, method.clone(), &path, request_headers, empty())?;
            let answer = self.dialer.send(&to, request, &self.guard(place, &to), Duration::ZERO).await?;
            if !is_redirect(answer.response.status()) {
                return Ok(answer);
            }
            (to, path) = self.redirect_target(&to, &path, &answer)?;
        }
        Err(protocol(&to, "it redirects in circles"))
    }

    /// Sends a body to an address that the registry gave, once, with the token that earlier requests got.
    pub(super) async fn upload(
        &self,
        place: &Place,
        method: Method,
        to: &(Authority, String),
        mut headers: HeaderMap,
        body: Body,
        sending: Duration,
    ) -> Result<Answer, RegistryError> {
        let (authority, path) = to;
        let first = &place.base.authority;
        if authority == first
            && let Some(value) = self.tokens.get(&place.token_key())
        {
            let value =
                HeaderValue::from_str(&value).map_err(|_| protocol(authority, "a token is no header"))?;
            headers.insert(header::AUTHORIZATION, value);
        }
        let request = self.request(authority, method, path, headers, body)?;
        let answer = self.dialer.send(authority, request, &self.guard(place, authority), sending).await?;
        if answer.response.status().is_success() {
            Ok(answer)
        } else {
            Err(self.refusal(place, "upload", answer).await)
        }
    }

    /// The address of `rest` of the repository.
    pub(super) fn address(&self, place: &Place, rest: &str) -> (Authority, String) {
        (place.base.authority.clone(), place.url_path(rest))
    }

    pub(super) fn request(
        &self,
        to: &Authority,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Request<Body>, RegistryError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| protocol(to, "it gave an address that is none"))?;
        *request.headers_mut() = headers;
        let host =
            HeaderValue::from_str(&to.host_port()).map_err(|_| protocol(to, "its name is no host name"))?;
        request.headers_mut().insert(header::HOST, host);
        let agent = HeaderValue::from_static(concat!("holm/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        Ok(request)
    }

    pub(super) fn redirect_target(
        &self,
        from: &Authority,
        path: &str,
        answer: &Answer,
    ) -> Result<(Authority, String), RegistryError> {
        let location = answer.response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| protocol(from, "it redirects to nowhere"))?;
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok((from.clone(), location.to_string()));
        }
        if !location.contains("://") {
            let directory =
                path.split('?').next().unwrap_or(path).rsplit_once('/').map_or("", |(dir, _)| dir);
            return Ok((from.clone(), format!("{directory}/{location}")));
        }
        let uri: Uri = location.parse().map_err(|_| protocol(from, "it redirects to no address"))?;
        let to =
            authority_of(&uri).ok_or_else(|| protocol(from, "it redirects to something other than HTTP"))?;
        if to.scheme == Scheme::Http && !self.may_be_plain(&to) {
            return Err(protocol(from, "it redirects to plain HTTP"));
        }
        // The same registry under its own name keeps its way of being called, and its token.
        let to = if from.scheme == Scheme::Either && to.host == from.host && to.port == from.port {
            from.clone()
        } else {
            to
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_string();
        Ok((to, path))
    }

    /// Gets the header that answers the registry's challenge.
    async fn log_in(&self, place: &Place, answer: &Answer) -> Result<String, RegistryError> {
        let challenges = answer.response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = auth::parse_challenge(challenges.iter().filter_map(|value| value.to_str().ok()));
        let (header, lifetime) = match challenge {
            Some(Challenge::Basic) => match &place.credentials {
                Some(credentials) => (auth::basic(credentials), Duration::from_secs(3600)),
                None => return Err(unauthorized(place)),
            },
            Some(Challenge::Bearer { realm, service, scope: _ }) => {
                // The scope is ours to choose: what the registry writes could ask for more than we need.
                let scope = format!("repository:{}:{}", place.repository, place.actions);
                self.fetch_token(place, &auth::token_url(&realm, service.as_deref(), &scope)).await?
            }
            None => return Err(unauthorized(place)),
        };
        self.tokens.put(place.token_key(), header.clone(), lifetime);
        Ok(header)
    }

    pub(super) async fn fetch_token(
        &self,
        place: &Place,
        url: &str,
    ) -> Result<(String, Duration), RegistryError> {
        let registry = &place.base.authority;
        let uri: Uri = url.parse().map_err(|_| protocol(registry, "its token server has no address"))?;
        let to = authority_of(&uri).ok_or_else(|| protocol(registry, "its token server is not HTTP"))?;
        if to.scheme == Scheme::Http && !self.may_be_plain(&to) {
            return Err(protocol(registry, "its token server is plain HTTP"));
        }
        let mut headers = HeaderMap::new();
        if let Some(credentials) = &place.credentials {
            let value = HeaderValue::from_str(&auth::basic(credentials));
            headers.insert(
                header::AUTHORIZATION,
                value.map_err(|_| protocol(&to, "the password is no header"))?,
            );
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = self.request(&to, Method::GET, path, headers, empty())?;
        let answer = self.dialer.send(&to, request, &self.guard(place, &to), Duration::ZERO).await?;
        match answer.response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(unauthorized(place)),
            _ => return Err(self.refusal(place, "token", answer).await),
        }
        let body = self.read_body(&to.host_port(), "a token", answer, SMALL_BYTES_MAX).await?;
        auth::parse_token(&body).ok_or_else(|| protocol(&to, "its token is none"))
    }

    /// Reads a small body whole.
    pub(super) async fn read_body(
        &self,
        host: &str,
        what: &str,
        mut answer: Answer,
        size_bytes_max: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut content = Vec::new();
        let read = async {
            while let Some(frame) = answer.response.body_mut().frame().await {
                let frame = frame.map_err(|source| RegistryError::Http { host: host.to_string(), source })?;
                let Ok(data) = frame.into_data() else { continue };
                if content.len() as u64 + data.len() as u64 > size_bytes_max {
                    let what = what.to_string();
                    return Err(RegistryError::TooLarge { host: host.to_string(), what, size_bytes_max });
                }
                content.extend_from_slice(&data);
            }
            Ok(())
        };
        // Small things have no reason to take longer than one idle time.
        within(host, "send the whole answer", self.settings.idle_timeout, read).await?;
        Ok(content)
    }

    /// A refusal in our words, with the registry's.
    pub(super) async fn refusal(&self, place: &Place, rest: &str, answer: Answer) -> RegistryError {
        let host = place.host();
        let status = answer.response.status();
        let retry_after_s = retry_after_s(answer.response.headers());
        let repository = place.repository.clone();
        let message = match self.read_body(&host, "a refusal", answer, SMALL_BYTES_MAX).await {
            Ok(body) => message_of(&body, status),
            Err(_) => status.canonical_reason().unwrap_or_default().to_string(),
        };
        match status {
            StatusCode::UNAUTHORIZED => unauthorized(place),
            StatusCode::FORBIDDEN => RegistryError::Denied { host, repository, message },
            StatusCode::NOT_FOUND => RegistryError::NotFound { host, what: name_of(&repository, rest) },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited { host, retry_after_s },
            _ => RegistryError::Status { host, status: status.as_u16(), message },
        }
    }
}

fn name_of(repository: &str, rest: &str) -> String {
    match rest.strip_prefix("manifests/") {
        Some(digest) if digest.contains(':') => format!("{repository}@{digest}"),
        Some(tag) => format!("{repository}:{tag}"),
        None => format!("{rest} of {repository}"),
    }
}

fn unauthorized(place: &Place) -> RegistryError {
    RegistryError::Unauthorized {
        host: place.host(),
        repository: place.repository.clone(),
        logged_in: place.credentials.is_some(),
    }
}

pub(super) fn protocol(host: &Authority, reason: &str) -> RegistryError {
    RegistryError::Protocol { host: host.host_port(), reason: reason.to_string() }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// `Retry-After` in seconds. The form with a date is not read: no registry sends it.
fn retry_after_s(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// The registry's words, made printable and cut.
fn message_of(body: &[u8], status: StatusCode) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) => errors
            .into_iter()
            .map(|item| if item.message.is_empty() { item.code } else { item.message })
            .collect::<Vec<_>>()
            .join(", "),
        Err(_) => status.canonical_reason().unwrap_or("no reason given").to_string(),
    };
    text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect()
}
