//! How a build goes, as BuildKit's clients are told it: steps that begin and end, and what they say.

use super::wire::{StatusResponse, Timestamp, Vertex, VertexLog, VertexStatus, VertexWarning};
use sha2::{Digest, Sha256};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// How long a build waits for a client that reads nothing. Then it is told nothing more.
const PATIENCE: Duration = Duration::from_secs(60);

/// The way to the client that asks for a build's status. Steps of one such way are in each other; what goes on beside it has a
/// way of its own.
pub struct Progress {
    client: Arc<Client>,
    /// Those that go on, each within the one before it.
    open: Mutex<Vec<Vertex>>,
}

/// What all ways of a build share.
struct Client {
    events: mpsc::Sender<StatusResponse>,
    /// Makes ids of steps those of this build.
    seed: String,
    count: AtomicU64,
    is_deaf: AtomicBool,
}

impl Progress {
    /// Tells by these events, of the build with this id.
    pub fn new(events: mpsc::Sender<StatusResponse>, seed: impl Into<String>) -> Self {
        let (count, is_deaf) = (AtomicU64::new(0), AtomicBool::new(false));
        let client = Client { events, seed: seed.into(), count, is_deaf };
        Self { client: Arc::new(client), open: Mutex::default() }
    }

    /// A way for what goes on beside this one.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { client: Arc::clone(&self.client), open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, Vec<Vertex>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step begins.
    pub async fn begin(&self, name: String) {
        let number = self.client.count.fetch_add(1, Ordering::Relaxed);
        let sum = Sha256::digest(format!("{} {number}", self.client.seed));
        let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        let vertex = Vertex {
            digest: format!("sha256:{hex}"),
            name,
            started: Some(jiff::Timestamp::now().into()),
            ..Vertex::default()
        };
        self.open().push(vertex.clone());
        self.send(StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() }).await;
    }

    /// The step that goes on was done before.
    pub fn cached(&self) {
        if let Some(vertex) = self.open().last_mut() {
            vertex.cached = true;
        }
    }

    /// The step that goes on has ended, well or with this reason.
    pub async fn end(&self, error: Option<&str>) {
        let Some(mut vertex) = self.open().pop() else { return };
        vertex.completed = Some(jiff::Timestamp::now().into());
        vertex.error = error.unwrap_or("").to_string();
        self.send(StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() }).await;
    }

    /// All that goes on has failed for this reason.
    pub async fn fail(&self, error: &str) {
        while !self.open().is_empty() {
            self.end(Some(error)).await;
        }
    }

    /// What a program of the step says: 1 for its output, 2 for its errors.
    pub async fn log(&self, stream: i64, message: Vec<u8>) {
        let Some(vertex) = self.open().last().map(|vertex| vertex.digest.clone()) else { return };
        let timestamp = Some(jiff::Timestamp::now().into());
        let log = VertexLog { vertex, timestamp, stream, message };
        self.send(StatusResponse { logs: vec![log], ..StatusResponse::default() }).await;
    }

    /// Something was done in the step.
    pub async fn done(&self, id: String) {
        let Some(vertex) = self.open().last().map(|vertex| vertex.digest.clone()) else { return };
        let now: Option<Timestamp> = Some(jiff::Timestamp::now().into());
        let status = VertexStatus { id, vertex, timestamp: now, started: now, completed: now };
        self.send(StatusResponse { statuses: vec![status], ..StatusResponse::default() }).await;
    }

    /// Something that people should know of the step.
    pub async fn warn(&self, text: &str) {
        let Some(vertex) = self.open().last().map(|vertex| vertex.digest.clone()) else { return };
        let warning = VertexWarning { vertex, level: 1, short: text.as_bytes().to_vec() };
        self.send(StatusResponse { warnings: vec![warning], ..StatusResponse::default() }).await;
        self.log(2, format!("WARNING: {text}\n").into_bytes()).await;
    }

    /// A client that is gone hears nothing.
    async fn send(&self, event: StatusResponse) {
        let client = &self.client;
        if !client.is_deaf.load(Ordering::Relaxed)
            && client.events.send_timeout(event, PATIENCE).await.is_err()
        {
            client.is_deaf.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn steps_are_told_with_their_ends() {
        let (events, mut queue) = mpsc::channel(16);
        let progress = Progress::new(events, "x");
        progress.log(1, b"nobody".to_vec()).await;
        progress.begin("one".into()).await;
        progress.begin("within".into()).await;
        progress.cached();
        progress.end(None).await;
        progress.log(2, b"said".to_vec()).await;
        progress.fail("why").await;
        progress.end(None).await;
        drop(progress);
        let mut all = vec![];
        while let Some(event) = queue.recv().await {
            all.push(event);
        }
        let vertexes: Vec<&Vertex> = all.iter().flat_map(|event| &event.vertexes).collect();
        let told: Vec<_> = vertexes
            .iter()
            .map(|v| (v.name.as_str(), v.completed.is_some(), v.cached, v.error.as_str()))
            .collect();
        let wanted = [
            ("one", false, false, ""),
            ("within", false, false, ""),
            ("within", true, true, ""),
            ("one", true, false, "why"),
        ];
        assert_eq!(told, wanted);
        assert_eq!(vertexes[0].digest, vertexes[3].digest);
        assert_ne!(vertexes[0].digest, vertexes[1].digest);
        let logs: Vec<&VertexLog> = all.iter().flat_map(|event| &event.logs).collect();
        assert_eq!(logs.len(), 1, "what nobody's step says is not told");
        assert_eq!((logs[0].vertex.as_str(), logs[0].stream), (vertexes[0].digest.as_str(), 2));
    }

    #[tokio::test]
    async fn what_goes_on_beside_a_step_is_no_part_of_it() {
        let (events, mut queue) = mpsc::channel(16);
        let one = Progress::new(events, "x");
        let other = one.beside();
        one.begin("one".into()).await;
        other.begin("other".into()).await;
        one.log(1, b"of one".to_vec()).await;
        other.warn("of the other").await;
        other.fail("why").await;
        one.end(None).await;
        drop((one, other));
        let mut all = vec![];
        while let Some(event) = queue.recv().await {
            all.push(event);
        }
        let vertexes: Vec<&Vertex> = all.iter().flat_map(|event| &event.vertexes).collect();
        let told: Vec<_> = vertexes.iter().map(|v| (v.name.as_str(), v.error.as_str())).collect();
        assert_eq!(told, [("one", ""), ("other", ""), ("other", "why"), ("one", "")]);
        assert_ne!(vertexes[0].digest, vertexes[1].digest);
        let logs: Vec<&str> =
            all.iter().flat_map(|event| &event.logs).map(|log| log.vertex.as_str()).collect();
        assert_eq!(logs, [vertexes[0].digest.as_str(), vertexes[1].digest.as_str()]);
        let warnings: Vec<&VertexWarning> = all.iter().flat_map(|event| &event.warnings).collect();
        assert_eq!(warnings[0].vertex, vertexes[1].digest);
    }
}
