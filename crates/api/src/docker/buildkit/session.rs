//! Sessions: connections on which the daemon calls the client, for its files, credentials, secrets and agents, and to give it
//! what was built.
//!
//! ```text
//!   docker ── POST /session, Upgrade: h2c ──▶ holm      headers: the session's id, and what the client serves
//!   docker ◀── FileSync, Auth, Secrets, SSH, FileSend ── holm      gRPC the other way round
//! ```
//!
//! A session is found by its id in the project of who opened it, and ends with its connection. Ids are the clients' own
//! secrets: 25 letters and digits that nobody else can guess.

use super::{
    connection::{HEADERS_BYTES_MAX, Tasks, leave},
    grpc::{self, Code, MEDIA_TYPE, Messages, Status, framed, metadata},
};
use crate::{
    app::Asker,
    docker::door::Door,
    error::{Failure, Result},
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    response::Response,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http_body_util::{StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Frame, client::conn::http2};
use model::id::ProjectId;
use prost::Message;
use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

const ID: &str = "x-docker-expose-session-uuid";
const METHOD: &str = "x-docker-expose-session-grpc-method";
/// Longest id.
const ID_BYTES_MAX: usize = 128;
/// Most sessions at a time.
const SESSIONS_MAX: usize = 256;
/// Most sessions of one project.
const SESSIONS_OF_PROJECT: usize = SESSIONS_MAX / 4;
/// How long a build waits for its session: clients open both at once.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may take to answer a call.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes that come before they are read. Names come as one small frame each: of many that nobody has read yet, HTTP/2 takes
/// the client for an attacker, and this is less than that takes.
const WINDOW_BYTES: u32 = 48 << 10;
/// Messages to a client that wait.
const MESSAGES_MAX: usize = 64;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a client serves.
pub struct Session {
    methods: BTreeSet<String>,
    calls: http2::SendRequest<Body>,
    /// Cancelled with its connection.
    pub ended: CancellationToken,
}

/// A call that goes both ways.
pub struct Stream {
    /// To the client; dropped, that half ends.
    pub send: mpsc::Sender<Bytes>,
    /// From the client.
    pub messages: Messages,
}

/// A call that goes both ways, whose answer begins when the client has something to say: it may wait for what is sent.
pub struct Call {
    /// To the client; dropped, that half ends.
    pub send: mpsc::Sender<Bytes>,
    /// From the client.
    pub answer: Answer,
}

/// What a client says to a call.
pub struct Answer {
    coming: BoxFuture<'static, grpc::Result<Messages>>,
    messages: Option<Messages>,
}

impl Answer {
    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// How the call ended, what is no message, and `Deadline` if nothing came for `patience`: it can be asked again then.
    pub async fn next<M: Message + Default>(&mut self, patience: Duration) -> grpc::Result<Option<M>> {
        if self.messages.is_none() {
            let stalled =
                |_| Status::new(Code::Deadline, format!("nothing came for {} s", patience.as_secs()));
            let messages = tokio::time::timeout(patience, &mut self.coming).await.map_err(stalled)??;
            self.messages = Some(messages);
        }
        match &mut self.messages {
            Some(messages) => messages.next(patience).await,
            None => Ok(None),
        }
    }
}

/// Sessions by their project and id.
#[derive(Default)]
pub struct Sessions {
    all: Mutex<HashMap<(ProjectId, String), Arc<Session>>>,
    changed: Notify,
}

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<(ProjectId, String), Arc<Session>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of a build, waited for.
    ///
    /// # Errors
    /// It does not come.
    pub async fn get(&self, project: ProjectId, id: &str) -> grpc::Result<Arc<Session>> {
        let key = (project, id.to_string());
        let found = async {
            loop {
                let changed = self.changed.notified();
                if let Some(found) = self.all().get(&key) {
                    return Arc::clone(found);
                }
                changed.await;
            }
        };
        tokio::time::timeout(OPEN_TIMEOUT, found)
            .await
            .map_err(|_| Status::new(Code::Unavailable, format!("no active session for {id:.64}")))
    }

    fn add(&self, key: &(ProjectId, String), session: Arc<Session>) -> bool {
        let mut all = self.all();
        let own = all.keys().filter(|(project, _)| *project == key.0).count();
        if all.len() >= SESSIONS_MAX || own >= SESSIONS_OF_PROJECT || all.contains_key(key) {
            return false;
        }
        all.insert(key.clone(), session);
        drop(all);
        self.changed.notify_waiters();
        true
    }
}

/// POST: the client opens a session.
pub async fn open(State(door): State<Door>, Asker(caller): Asker, mut request: Request) -> Result<Response> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or("").to_string();
    let id = request.headers().get(ID).map(text).unwrap_or_default();
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        let message = format!("the header {ID} names the session, in at most {ID_BYTES_MAX} bytes");
        return Err(Failure::new(model::error::Code::Invalid, message));
    }
    let methods: BTreeSet<String> =
        request.headers().get_all(METHOD).iter().map(|value| text(value).to_ascii_lowercase()).collect();
    let key = (caller.project, id);
    let shared = door.clone();
    leave(&door, &caller, &mut request, move |connection| async move {
        let mut http = http2::Builder::new(Tasks(shared.app().tasks().clone()));
        http.max_header_list_size(HEADERS_BYTES_MAX).initial_stream_window_size(WINDOW_BYTES);
        let (calls, connection) = match http.handshake::<_, Body>(connection).await {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "a session was not taken up"),
        };
        let ended = CancellationToken::new();
        let session = Arc::new(Session { methods, calls, ended: ended.clone() });
        // It ends with this, whatever ends it.
        let _end = ended.drop_guard();
        let sessions = &shared.buildkit().sessions;
        if !sessions.add(&key, session) {
            return tracing::debug!("a session has the id of another, or there are too many already");
        }
        let _gone = Gone { door: &shared, key };
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a session broke off");
        }
    })
}

/// Takes a session off the list, whatever ends it.
struct Gone<'a> {
    door: &'a Door,
    key: (ProjectId, String),
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.door.buildkit().sessions.all().remove(&self.key);
    }
}

impl Session {
    /// Whether the client serves a method.
    pub fn serves(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    /// A call with one message each way.
    ///
    /// # Errors
    /// What the client answers, or nothing in time.
    pub async fn call<M: Message + Default>(&self, method: &str, message: &impl Message) -> grpc::Result<M> {
        let (send, queue) = mpsc::channel(1);
        let _ = send.send(framed(message)).await;
        drop(send);
        self.begin(method, &[], queue).await?.only(ANSWER_TIMEOUT).await
    }

    /// A call that goes both ways, with these headers.
    ///
    /// # Errors
    /// The client does not take it.
    pub async fn stream(&self, method: &str, headers: &[(&str, &[String])]) -> grpc::Result<Stream> {
        let (send, queue) = mpsc::channel(MESSAGES_MAX);
        let messages = self.begin(method, headers, queue).await?;
        Ok(Stream { send, messages })
    }

    /// A call that goes both ways, with these headers, which the client may answer late.
    ///
    /// # Errors
    /// The client does not take it.
    pub async fn open(&self, method: &str, headers: &[(&str, &[String])]) -> grpc::Result<Call> {
        let (send, queue) = mpsc::channel(MESSAGES_MAX);
        let coming = self.ask(method, headers, queue).await?.boxed();
        Ok(Call { send, answer: Answer { coming, messages: None } })
    }

    async fn begin(
        &self,
        method: &str,
        headers: &[(&str, &[String])],
        queue: mpsc::Receiver<Bytes>,
    ) -> grpc::Result<Messages> {
        let answer = async { self.ask(method, headers, queue).await?.await };
        tokio::time::timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| {
            Status::new(
                Code::Deadline,
                format!("the client did not answer within {} s", ANSWER_TIMEOUT.as_secs()),
            )
        })?
    }

    /// Sends a call. Its answer is what is given.
    async fn ask(
        &self,
        method: &str,
        headers: &[(&str, &[String])],
        queue: mpsc::Receiver<Bytes>,
    ) -> grpc::Result<impl Future<Output = grpc::Result<Messages>> + Send + use<>> {
        if !self.serves(method) {
            return Err(Status::new(Code::Unimplemented, format!("the client does not serve {method}")));
        }
        let frames = stream::unfold(queue, |mut queue| async move {
            Some((Ok::<_, Infallible>(Frame::data(queue.recv().await?)), queue))
        });
        let mut request = hyper::Request::new(UnsyncBoxBody::new(StreamBody::new(frames.boxed())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("http://session{method}")
            .parse()
            .map_err(|_| Status::new(Code::Invalid, format!("{method} is no method")))?;
        *request.headers_mut() = head(headers);
        let mut calls = self.calls.clone();
        let broken = |error| Status::new(Code::Unavailable, format!("the client is gone: {error}"));
        let ready = tokio::time::timeout(ANSWER_TIMEOUT, calls.ready()).await;
        ready.map_err(|_| Status::new(Code::Deadline, "the client takes no more calls"))?.map_err(broken)?;
        let answer = calls.send_request(request);
        Ok(async move {
            let (parts, body) = answer.await.map_err(broken)?.into_parts();
            if parts.status != 200 {
                return Err(Status::new(Code::Unavailable, format!("the client answered {}", parts.status)));
            }
            Ok(Messages::new(body, &parts.headers))
        })
    }
}

#[cfg(test)]
impl Session {
    /// A session on a connection to who serves one method.
    pub async fn on(connection: tokio::io::DuplexStream, method: &str) -> Self {
        let tasks = Tasks(tokio_util::task::TaskTracker::new());
        let io = hyper_util::rt::TokioIo::new(connection);
        let (calls, connection) = http2::Builder::new(tasks).handshake::<_, Body>(io).await.expect("HTTP/2");
        tokio::spawn(connection);
        let methods = BTreeSet::from([method.to_ascii_lowercase()]);
        Self { methods, calls, ended: CancellationToken::new() }
    }
}

/// The headers of a call.
fn head(headers: &[(&str, &[String])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(header::CONTENT_TYPE, MEDIA_TYPE);
    map.insert(header::TE, HeaderValue::from_static("trailers"));
    for (name, values) in headers {
        let Ok(key) = name.parse::<HeaderName>() else { continue };
        // Where one value cannot be sent as it is, the client reads all of them in the other form.
        let is_encoded = values.iter().any(|value| metadata(value).1);
        for value in *values {
            let text = if is_encoded { grpc::query_escaped(value) } else { value.clone() };
            if let Ok(value) = HeaderValue::from_str(&text) {
                map.append(key.clone(), value);
            }
        }
        if is_encoded && let Ok(key) = format!("{name}-encoded").parse::<HeaderName>() {
            map.insert(key, HeaderValue::from_static("1"));
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_calls_are_ascii() {
        let (name, patterns) = (["context".to_string()], ["a b".to_string(), "ä".to_string()]);
        let map = head(&[("dir-name", &name[..]), ("exclude-patterns", &patterns[..])]);
        assert_eq!(map["dir-name"], "context");
        assert!(!map.contains_key("dir-name-encoded"));
        let all: Vec<_> = map.get_all("exclude-patterns").iter().collect();
        assert_eq!(all, ["a+b", "%C3%A4"]);
        assert_eq!(map["exclude-patterns-encoded"], "1");
        assert_eq!(map["te"], "trailers");
    }
}
