//! The typed client of the native API: what the command line and other programs speak to holm with.
//!
//! ```no_run
//! # async fn example() -> Result<(), api::client::Error> {
//! use api::{client::Client, v1::types::{instance::Instance, list::WaitQuery}};
//! let client = Client::unix("/run/holm/holm.sock").with_project("shop");
//! let web: Instance = client.get("web").await?;
//! println!("{} is {}", web.head.name, web.phase);
//! client.delete::<Instance>("web", &WaitQuery::default()).await?;
//! # Ok(()) }
//! ```
//! It keeps one idle connection and opens others as needed. It retries nothing: a caller knows what is safe.

mod docker;
mod error;
mod noun;
mod stream;
mod transport;
mod upload;

pub use docker::{DockerBody, DockerLines};
pub use error::Error;
pub use noun::{Create, Noun, Update, Verb};
pub use stream::{BuildLines, Changes, FrameStream, LogLines, Upgraded};
pub use transport::{Trust, fingerprint};
pub use upload::SHA256_HEADER;

use crate::v1::types::{
    List,
    advice::{Advice, AdviceQuery},
    image::{AnswerShare, Image, ImageMember, ImageUsers, TagImage},
    instance::{AttachPort, AttachVolume, Instance},
    keypair::{Keypair, RevokedKeypair},
    list::{ListQuery, WaitQuery},
    publish::{Exposed, ExposedQuery},
    quota::{Quota, Quotas, UpdateQuota},
    router::{AddInterface, Router},
    security_group::{CreateRule, Rule},
    token::{CreateToken, CreatedToken},
    version::Version,
    volume::{RestoreVolume, SaveVolume, Volume},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Incoming, header};
use serde::{Serialize, de::DeserializeOwned};
use std::{path::Path, sync::Arc, time::Duration};
use transport::{Body, Transport};

/// Most bytes of an answer that is read as a whole.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Time for a call that does not wait for anything.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Most pages that [`Client::list_all`] fetches.
pub const PAGES_MAX: usize = 1_000;

/// A holm to talk to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Arc<Transport>,
    token: Option<String>,
    project: Option<String>,
}

impl Client {
    /// The holm behind a unix socket.
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::new(Transport::unix(path.as_ref()))
    }

    /// The holm at `host:port` (or `https://host:port`), over TLS.
    ///
    /// # Errors
    /// The address is malformed, or the CA file in `trust` holds no certificate.
    pub fn tls(address: &str, trust: &Trust) -> Result<Self, Error> {
        Transport::tls(address, trust).map(Self::new)
    }

    fn new(transport: Transport) -> Self {
        Self { transport: Arc::new(transport), token: None, project: None }
    }

    /// Shows this token with each call.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Makes each call about this project (name or id).
    #[must_use]
    pub fn with_project(mut self, project: impl Into<String>) -> Self {
        self.project = Some(project.into());
        self
    }

    /// Where this client connects to, for messages.
    pub fn address(&self) -> String {
        self.transport.address()
    }

    // ---- every noun -------------------------------------------------------------------------------------------

    /// One page of a list.
    pub async fn list<N: Noun>(&self, query: &ListQuery) -> Result<List<N>, Error> {
        self.call(Method::GET, &with_query(&format!("/v1/{}", N::PATH), query), None::<&()>, None).await
    }

    /// All pages of a list.
    pub async fn list_all<N: Noun>(&self, query: &ListQuery) -> Result<Vec<N>, Error> {
        let mut query = query.clone();
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = self.list(&query).await?;
            all.extend(page.items);
            match page.next {
                Some(next) => query.marker = Some(next),
                None => return Ok(all),
            }
        }
        Err(Error::Protocol(format!("the list of {} does not end", N::PATH)))
    }

    /// One thing by name, id or unique beginning of its id.
    pub async fn get<N: Noun>(&self, reference: &str) -> Result<N, Error> {
        self.get_waiting(reference, &WaitQuery::default()).await
    }

    /// One thing, once it is settled or in the phase asked for, or the time is over.
    pub async fn get_waiting<N: Noun>(&self, reference: &str, wait: &WaitQuery) -> Result<N, Error> {
        self.call(Method::GET, &with_query(&path::<N>(reference), wait), None::<&()>, wait.wait).await
    }

    /// Makes one.
    pub async fn create<N: Create>(&self, request: &N::Request, wait: &WaitQuery) -> Result<N, Error> {
        let path = with_query(&format!("/v1/{}", N::PATH), wait);
        self.call(Method::POST, &path, Some(request), wait.wait).await
    }

    /// Changes one.
    pub async fn update<N: Update>(
        &self,
        reference: &str,
        request: &N::Request,
        wait: &WaitQuery,
    ) -> Result<N, Error> {
        let path = with_query(&path::<N>(reference), wait);
        self.call(Method::PATCH, &path, Some(request), wait.wait).await
    }

    /// Deletes one. `Some` is the thing on its way out, `None` is that it is gone.
    pub async fn delete<N: Noun>(&self, reference: &str, wait: &WaitQuery) -> Result<Option<N>, Error> {
        let path = with_query(&path::<N>(reference), wait);
        self.call_maybe(Method::DELETE, &path, None::<&()>, wait.wait).await
    }

    // ---- instances ---------------------------------------------------------------------------------------------

    /// Starts, stops and the like.
    pub async fn act(&self, instance: &str, verb: Verb, wait: &WaitQuery) -> Result<Instance, Error> {
        let path = format!("{}/{}", path::<Instance>(instance), verb.as_str());
        self.call(Method::POST, &with_query(&path, wait), None::<&()>, wait.wait).await
    }

    /// Plugs a network interface in.
    pub async fn attach_port(
        &self,
        instance: &str,
        request: &AttachPort,
        wait: &WaitQuery,
    ) -> Result<Instance, Error> {
        let path = format!("{}/ports", path::<Instance>(instance));
        self.call(Method::POST, &with_query(&path, wait), Some(request), wait.wait).await
    }

    /// Takes a key from all instances.
    pub async fn revoke_keypair(&self, keypair: &str) -> Result<RevokedKeypair, Error> {
        let path = format!("{}/revoke", path::<Keypair>(keypair));
        self.call(Method::POST, &path, None::<&()>, None).await
    }

    /// Unplugs a network interface.
    pub async fn detach_port(&self, instance: &str, port: &str, wait: &WaitQuery) -> Result<Instance, Error> {
        let path = format!("{}/ports/{}", path::<Instance>(instance), escape(port));
        self.call(Method::DELETE, &with_query(&path, wait), None::<&()>, wait.wait).await
    }

    /// Plugs a volume in.
    pub async fn attach_volume(
        &self,
        instance: &str,
        request: &AttachVolume,
        wait: &WaitQuery,
    ) -> Result<Instance, Error> {
        let path = format!("{}/volumes", path::<Instance>(instance));
        self.call(Method::POST, &with_query(&path, wait), Some(request), wait.wait).await
    }

    /// Puts a volume back to a snapshot.
    ///
    /// # Errors
    /// As the server refuses.
    pub async fn restore_volume(
        &self,
        volume: &str,
        request: &RestoreVolume,
        wait: &WaitQuery,
    ) -> Result<Volume, Error> {
        let path = format!("{}/restore", path::<Volume>(volume));
        self.call(Method::POST, &with_query(&path, wait), Some(request), wait.wait).await
    }

    /// Makes an image of a volume.
    ///
    /// # Errors
    /// As the server refuses.
    pub async fn save_volume(
        &self,
        volume: &str,
        request: &SaveVolume,
        wait: &WaitQuery,
    ) -> Result<Image, Error> {
        let path = format!("{}/image", path::<Volume>(volume));
        self.call(Method::POST, &with_query(&path, wait), Some(request), wait.wait).await
    }

    /// Unplugs a volume.
    pub async fn detach_volume(
        &self,
        instance: &str,
        volume: &str,
        wait: &WaitQuery,
    ) -> Result<Instance, Error> {
        let path = format!("{}/volumes/{}", path::<Instance>(instance), escape(volume));
        self.call(Method::DELETE, &with_query(&path, wait), None::<&()>, wait.wait).await
    }

    // ---- images ------------------------------------------------------------------------------------------------

    /// Projects that an image is shared with.
    pub async fn image_members(&self, image: &str) -> Result<Vec<ImageMember>, Error> {
        let path = format!("{}/members", path::<Image>(image));
        let members: List<ImageMember> = self.call(Method::GET, &path, None::<&()>, None).await?;
        Ok(members.items)
    }

    /// What uses an image.
    pub async fn image_users(&self, image: &str) -> Result<ImageUsers, Error> {
        self.call(Method::GET, &format!("{}/users", path::<Image>(image)), None::<&()>, None).await
    }

    /// Shares an image with a project.
    pub async fn share_image(&self, image: &str, project: &str) -> Result<ImageMember, Error> {
        let path = format!("{}/members/{}", path::<Image>(image), escape(project));
        self.call(Method::PUT, &path, None::<&()>, None).await
    }

    /// Says for a project what it thinks of an image that is shared with it.
    pub async fn answer_share(
        &self,
        image: &str,
        project: &str,
        request: &AnswerShare,
    ) -> Result<ImageMember, Error> {
        let path = format!("{}/members/{}", path::<Image>(image), escape(project));
        self.call(Method::PATCH, &path, Some(request), None).await
    }

    /// Takes an image back from a project.
    pub async fn unshare_image(&self, image: &str, project: &str) -> Result<(), Error> {
        let path = format!("{}/members/{}", path::<Image>(image), escape(project));
        self.call_maybe::<serde_json::Value>(Method::DELETE, &path, None::<&()>, None).await.map(drop)
    }

    /// Gives an image's content another name.
    pub async fn tag_image(&self, image: &str, name: &str) -> Result<Image, Error> {
        let request = TagImage { name: name.to_string() };
        self.call(Method::POST, &format!("{}/tag", path::<Image>(image)), Some(&request), None).await
    }

    /// Withdraws an image, or lets it be used again.
    pub async fn set_image_deactivated(&self, image: &str, deactivated: bool) -> Result<Image, Error> {
        let verb = if deactivated { "deactivate" } else { "reactivate" };
        let path = format!("{}/{verb}", path::<Image>(image));
        self.call(Method::POST, &path, None::<&()>, None).await
    }

    // ---- parts of other nouns ----------------------------------------------------------------------------------

    /// Adds a rule to a security group; one for each address family where the request leaves it open.
    pub async fn add_rule(&self, group: &str, request: &CreateRule) -> Result<Vec<Rule>, Error> {
        let path = format!("/v1/security_groups/{}/rules", escape(group));
        let rules: List<Rule> = self.call(Method::POST, &path, Some(request), None).await?;
        Ok(rules.items)
    }

    /// Takes a rule away, by its id or a unique beginning of it.
    pub async fn delete_rule(&self, group: &str, rule: &str) -> Result<(), Error> {
        let path = format!("/v1/security_groups/{}/rules/{}", escape(group), escape(rule));
        self.call_maybe::<serde_json::Value>(Method::DELETE, &path, None::<&()>, None).await.map(drop)
    }

    /// Joins a subnet to a router.
    pub async fn add_interface(&self, router: &str, subnet: &str) -> Result<Router, Error> {
        let request = AddInterface { subnet: Some(subnet.to_string()), port: None };
        let path = format!("{}/interfaces", path::<Router>(router));
        self.call(Method::POST, &path, Some(&request), None).await
    }

    /// Joins a port that nothing uses to a router.
    pub async fn add_interface_port(&self, router: &str, port: &str) -> Result<Router, Error> {
        let request = AddInterface { subnet: None, port: Some(port.to_string()) };
        let path = format!("{}/interfaces", path::<Router>(router));
        self.call(Method::POST, &path, Some(&request), None).await
    }

    /// Takes a subnet from a router.
    pub async fn remove_interface(&self, router: &str, subnet: &str) -> Result<Router, Error> {
        let path = format!("{}/interfaces/{}", path::<Router>(router), escape(subnet));
        self.call(Method::DELETE, &path, None::<&()>, None).await
    }

    /// Limits and use of all projects that the caller may see.
    ///
    /// # Errors
    /// As the server refuses.
    pub async fn quotas(&self) -> Result<Quotas, Error> {
        self.call(Method::GET, "/v1/quotas", None::<&()>, None).await
    }

    /// Limits and use of a project.
    pub async fn quota(&self, project: &str) -> Result<Quota, Error> {
        let path = format!("/v1/quotas/{}", escape(project));
        self.call(Method::GET, &path, None::<&()>, None).await
    }

    /// Sets limits of a project.
    pub async fn set_quota(&self, project: &str, request: &UpdateQuota) -> Result<Quota, Error> {
        let path = format!("/v1/quotas/{}", escape(project));
        self.call(Method::PUT, &path, Some(request), None).await
    }

    /// Makes an access token; its secret is in the answer and nowhere else.
    pub async fn create_token(&self, request: &CreateToken) -> Result<CreatedToken, Error> {
        self.call(Method::POST, "/v1/tokens", Some(request), None).await
    }

    /// What answers, and who the caller is taken for.
    pub async fn version(&self) -> Result<Version, Error> {
        self.call(Method::GET, "/v1/version", None::<&()>, None).await
    }

    /// What can be reached from outside; of one instance, of another project, or of all by `*`.
    pub async fn exposed(
        &self,
        instance: Option<&str>,
        project: Option<&str>,
    ) -> Result<Vec<Exposed>, Error> {
        let query =
            ExposedQuery { instance: instance.map(str::to_string), project: project.map(str::to_string) };
        let path = with_query("/v1/exposed", &query);
        let page: List<Exposed> = self.call(Method::GET, &path, None::<&()>, None).await?;
        Ok(page.items)
    }

    /// What instances use, and what would do; of one instance, of another project, or of all by `*`.
    ///
    /// # Errors
    /// As the server refuses.
    pub async fn advice(&self, instance: Option<&str>, project: Option<&str>) -> Result<Vec<Advice>, Error> {
        let query =
            AdviceQuery { instance: instance.map(str::to_string), project: project.map(str::to_string) };
        let path = with_query("/v1/advice", &query);
        let page: List<Advice> = self.call(Method::GET, &path, None::<&()>, None).await?;
        Ok(page.items)
    }

    // ---- the wire ----------------------------------------------------------------------------------------------

    /// Sends `body` as JSON and reads JSON. `wait_s` is how long the server was asked to wait.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        wait_s: Option<u32>,
    ) -> Result<T, Error> {
        self.call_maybe(method, path, body, wait_s)
            .await?
            .ok_or_else(|| Error::Protocol(format!("{path} answered nothing")))
    }

    async fn call_maybe<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        wait_s: Option<u32>,
    ) -> Result<Option<T>, Error> {
        let bytes = match body {
            Some(body) => serde_json::to_vec(body).map_err(|e| Error::Protocol(e.to_string()))?,
            None => Vec::new(),
        };
        let mut builder = self.request(method, path);
        if body.is_some() {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        let request = build(builder, full(bytes))?;
        let limit = CALL_TIMEOUT + Duration::from_secs(u64::from(wait_s.unwrap_or(0)));
        let work = async {
            let (answer, connection) = self.transport.send(request).await?;
            let status = answer.status();
            let bytes = read_all(answer.into_body()).await?;
            connection.keep(&self.transport).await;
            Ok::<_, Error>((status, bytes))
        };
        let (status, bytes) =
            tokio::time::timeout(limit, work).await.map_err(|_| Error::Timeout(limit))??;
        if status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        read_json(status, &bytes).map(Some)
    }

    /// A request with the headers that every call has.
    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let mut builder = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.transport.host())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("holm/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(project) = &self.project {
            builder = builder.header("x-holm-project", escape(project));
        }
        builder
    }

    /// Sends a request on a connection of its own and gives the answer's body as it comes.
    async fn open(&self, request: Request<Body>) -> Result<hyper::Response<Incoming>, Error> {
        let sending = self.transport.send_alone(request);
        let answer =
            tokio::time::timeout(CALL_TIMEOUT, sending).await.map_err(|_| Error::Timeout(CALL_TIMEOUT))??;
        if answer.status().is_client_error() || answer.status().is_server_error() {
            let status = answer.status();
            let bytes = read_all(answer.into_body()).await?;
            return Err(Error::from_answer(status, &bytes));
        }
        Ok(answer)
    }
}

fn build(builder: hyper::http::request::Builder, body: Body) -> Result<Request<Body>, Error> {
    builder.body(body).map_err(|e| Error::Invalid(format!("this cannot be sent: {e}")))
}

fn full(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
}

async fn read_all(body: Incoming) -> Result<Bytes, Error> {
    Limited::new(body, ANSWER_BYTES_MAX)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|e| Error::Protocol(format!("the answer broke off: {e}")))
}

fn read_json<T: DeserializeOwned>(status: StatusCode, bytes: &[u8]) -> Result<T, Error> {
    if !status.is_success() {
        return Err(Error::from_answer(status, bytes));
    }
    serde_json::from_slice(bytes).map_err(|e| Error::Protocol(format!("the answer cannot be read: {e}")))
}

fn path<N: Noun>(reference: &str) -> String {
    format!("/v1/{}/{}", N::PATH, escape(reference))
}

/// Adds the fields of a flat struct as the query.
fn with_query(path: &str, query: &impl Serialize) -> String {
    let fields = serde_json::to_value(query).unwrap_or_default();
    let pairs: Vec<String> = fields
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(format!("{key}={}", escape(text))),
            other => Some(format!("{key}={other}")),
        })
        .collect();
    if pairs.is_empty() { path.to_string() } else { format!("{path}?{}", pairs.join("&")) }
}

/// Percent-encodes everything but unreserved characters (RFC 3986, section 2.3).
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_names_are_escaped() {
        assert_eq!(escape("a b/ü?"), "a%20b%2F%C3%BC%3F");
        let query = ListQuery { label: Some("a=b&c".into()), limit: Some(5), ..ListQuery::default() };
        assert_eq!(with_query("/v1/x", &query), "/v1/x?label=a%3Db%26c&limit=5");
        assert_eq!(with_query("/v1/x", &WaitQuery::default()), "/v1/x");
    }
}
