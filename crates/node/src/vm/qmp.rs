//! A thin client of QEMU's monitor protocol (QMP) on a unix socket.
//!
//! Replies stay `serde_json::Value`: what QEMU answers differs from version to version, and a typed reply that does not
//! parse would turn a new field into an outage. Every command has an id and a deadline, so a hung QEMU costs its caller
//! a bounded time; a late reply is dropped by its id. Must never trust QEMU: lines are bounded, and QEMU is what a guest
//! that escaped would speak through.
//!
//! ```text
//!  execute ──▶ {"execute","id"} (+ descriptors) ──▶ socket ──▶ QEMU
//!  waiter  ◀── by id ◀── reader task ◀── lines ◀──────┘
//!  events  ◀── broadcast ◀──┘
//! ```
//!
//! Source: docs/interop/qmp-spec.rst of QEMU.

use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::Interest,
    net::UnixStream,
    sync::{broadcast, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::driver::DriverError;

/// Deadline of a command when the caller names none.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Longest line taken from QEMU; the schema, the longest of all, has about 300 KiB.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Events kept for a slow listener before it is told that it missed some.
const EVENTS_MAX: usize = 256;

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Nobody listens on the socket, or it is not QEMU.
    #[error("cannot connect to the monitor {}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// No answer in time; QEMU may still carry the command out.
    #[error("QEMU did not answer {command} within {after_ms} ms")]
    Timeout {
        /// The command.
        command: String,
        /// The deadline in milliseconds.
        after_ms: u64,
    },
    /// QEMU closed the connection: it ended, or was never there.
    #[error("QEMU closed the monitor before it answered {command}")]
    Closed {
        /// The command.
        command: String,
    },
    /// QEMU understood and said no.
    #[error("QEMU refused {command}: {description}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's error class, mostly `GenericError`.
        class: String,
        /// QEMU's words.
        description: String,
    },
}

impl QmpError {
    /// Whether QEMU is gone, which is not a failure for whoever wants it gone.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Closed { .. })
    }
}

impl From<QmpError> for DriverError {
    fn from(error: QmpError) -> Self {
        match error {
            QmpError::Timeout { command, after_ms } => {
                DriverError::Timeout { what: format!("QEMU ({command})"), after_ms }
            }
            QmpError::Connect { .. } | QmpError::Closed { .. } => DriverError::NotRunning,
            QmpError::Refused { command, description, .. } => {
                DriverError::Refused { operation: command, answer: description }
            }
        }
    }
}

/// Something that QEMU told by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Name, as `SHUTDOWN` or `DEVICE_DELETED`.
    pub name: String,
    /// What belongs to it; `Value::Null` if nothing.
    pub data: Value,
}

/// A connection to one QEMU. Cheap to share behind an `Arc`; dropping it closes the socket, which never harms the guest.
#[derive(Debug)]
pub struct Qmp {
    stream: Arc<UnixStream>,
    pending: Arc<Pending>,
    next_id: AtomicU64,
    /// One command is written at a time; held across the write only, which the deadline bounds.
    writing: tokio::sync::Mutex<()>,
    events: broadcast::Sender<Event>,
    closing: Arc<watch::Sender<bool>>,
    reader: JoinHandle<()>,
}

/// Callers that wait for a reply, by id.
#[derive(Debug, Default)]
struct Pending {
    waiters: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
}

impl Qmp {
    /// Connects, reads the greeting and leaves negotiation mode, all within `deadline`.
    pub async fn connect(path: &Path, deadline: Duration) -> Result<Qmp, QmpError> {
        let failed = |source| QmpError::Connect { path: path.to_owned(), source };
        let slow = || failed(io::Error::new(io::ErrorKind::TimedOut, "no greeting in time"));
        let greet = async {
            let stream = Arc::new(UnixStream::connect(path).await.map_err(failed)?);
            let mut lines = Lines { stream: stream.clone(), buffer: Vec::new() };
            let greeting = lines.next().await.map_err(failed)?;
            if greeting.as_ref().and_then(|greeting| greeting.get("QMP")).is_none() {
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "no QMP greeting")));
            }
            let qmp = Qmp::start(stream, lines);
            qmp.execute("qmp_capabilities", json!({})).await?;
            Ok(qmp)
        };
        timeout(deadline, greet).await.map_err(|_| slow())?
    }

    fn start(stream: Arc<UnixStream>, lines: Lines) -> Qmp {
        let pending = Arc::new(Pending::default());
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let closing = Arc::new(watch::Sender::new(false));
        let reader = tokio::spawn(read_all(lines, pending.clone(), events.clone(), closing.clone()));
        Qmp {
            stream,
            pending,
            next_id: AtomicU64::new(1),
            writing: tokio::sync::Mutex::new(()),
            events,
            closing,
            reader,
        }
    }

    /// Runs a command with the usual [`DEADLINE`].
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.execute_with(command, arguments, &[], DEADLINE).await
    }

    /// Runs a command, handing over `descriptors` with it (for `getfd` and `add-fd`).
    pub async fn execute_with(
        &self,
        command: &str,
        arguments: Value,
        descriptors: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<Value, QmpError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut line = json!({"execute": command, "arguments": arguments, "id": id}).to_string().into_bytes();
        line.push(b'\n');
        let (sender, reply) = oneshot::channel();
        let closed = || QmpError::Closed { command: command.to_owned() };
        self.pending.add(id, sender);
        // The reader empties the table once, after it has said that it ends; whoever comes later must not wait.
        if self.is_closed() {
            self.pending.take(id);
            return Err(closed());
        }
        let exchange = async {
            self.write(&line, descriptors).await.map_err(|_| closed())?;
            reply.await.map_err(|_| closed())
        };
        let after_ms = deadline.as_millis() as u64;
        let late = |_| QmpError::Timeout { command: command.to_owned(), after_ms };
        let result = timeout(deadline, exchange).await;
        self.pending.take(id);
        outcome(command, result.map_err(late)??)
    }

    async fn write(&self, line: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let _turn = self.writing.lock().await;
        let mut guard = CloseUnlessDone { closing: &self.closing, armed: false };
        let (mut rest, mut descriptors) = (line, descriptors);
        while !rest.is_empty() {
            let send = || Ok(sys::fdpass::send(&*self.stream, rest, descriptors)?);
            let sent = self.stream.async_io(Interest::WRITABLE, send).await?;
            (rest, descriptors) = (&rest[sent..], &[]);
            // A caller that gives up between two parts leaves half a command: then the connection is of no more use.
            guard.armed = !rest.is_empty();
        }
        Ok(())
    }

    /// Events from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Whether QEMU has closed the connection.
    pub fn is_closed(&self) -> bool {
        *self.closing.borrow()
    }

    /// Waits until QEMU closes the connection.
    pub async fn wait_closed(&self) {
        let mut closed = self.closing.subscribe();
        // An error means that the reader is gone, which is the same.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// What this QEMU can do, by its own schema.
    pub async fn features(&self) -> Result<Features, QmpError> {
        Ok(Features::from_schema(&self.execute("query-qmp-schema", json!({})).await?))
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Declares the connection closed when dropped armed.
struct CloseUnlessDone<'a> {
    closing: &'a watch::Sender<bool>,
    armed: bool,
}

impl Drop for CloseUnlessDone<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.closing.send_replace(true);
        }
    }
}

impl Pending {
    fn add(&self, id: u64, sender: oneshot::Sender<Value>) {
        self.waiters.lock().expect("no holder panics").insert(id, sender);
    }

    fn take(&self, id: u64) -> Option<oneshot::Sender<Value>> {
        self.waiters.lock().expect("no holder panics").remove(&id)
    }

    fn clear(&self) {
        self.waiters.lock().expect("no holder panics").clear();
    }
}

fn outcome(command: &str, mut reply: Value) -> Result<Value, QmpError> {
    if let Some(result) = reply.get_mut("return") {
        return Ok(result.take());
    }
    let text = |field| reply.pointer(field).and_then(Value::as_str).unwrap_or("unknown").to_owned();
    Err(QmpError::Refused {
        command: command.to_owned(),
        class: text("/error/class"),
        description: text("/error/desc"),
    })
}

async fn read_all(
    mut lines: Lines,
    pending: Arc<Pending>,
    events: broadcast::Sender<Event>,
    closing: Arc<watch::Sender<bool>>,
) {
    loop {
        match lines.next().await {
            Ok(Some(mut message)) => {
                if let Some(name) = message.get("event").and_then(Value::as_str) {
                    let name = name.to_owned();
                    // Nobody listening is fine.
                    let _ = events.send(Event { name, data: message["data"].take() });
                } else if let Some(waiter) =
                    message.get("id").and_then(Value::as_u64).and_then(|id| pending.take(id))
                {
                    let _ = waiter.send(message);
                }
            }
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "the monitor of a VM is unreadable and is closed");
                break;
            }
        }
    }
    closing.send_replace(true);
    pending.clear();
}

/// The stream cut into lines of JSON.
struct Lines {
    stream: Arc<UnixStream>,
    buffer: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> io::Result<Option<Value>> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=searched + end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(io::Error::from);
            }
            searched = self.buffer.len();
            if searched > LINE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of more than 8 MiB"));
            }
            self.stream.readable().await?;
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Commands, events and arguments that a QEMU knows (`query-qmp-schema`).
#[derive(Debug, Clone, Default)]
pub struct Features {
    /// Name of a command to the id of its arguments' type.
    commands: HashMap<String, String>,
    events: HashMap<String, ()>,
    /// Id of an object type to the names of its members.
    members: HashMap<String, Vec<String>>,
}

impl Features {
    /// Reads the schema; what is not understood is left out.
    pub fn from_schema(schema: &Value) -> Features {
        let mut features = Features::default();
        let text = |entity: &Value, field: &str| entity[field].as_str().unwrap_or_default().to_owned();
        for entity in schema.as_array().into_iter().flatten() {
            let name = text(entity, "name");
            match entity["meta-type"].as_str() {
                Some("command") => drop(features.commands.insert(name, text(entity, "arg-type"))),
                Some("event") => drop(features.events.insert(name, ())),
                Some("object") => {
                    let members = entity["members"].as_array().into_iter().flatten();
                    features.members.insert(name, members.map(|member| text(member, "name")).collect());
                }
                _ => {}
            }
        }
        features
    }

    /// Whether the command exists.
    pub fn has_command(&self, command: &str) -> bool {
        self.commands.contains_key(command)
    }

    /// Whether the event exists.
    pub fn has_event(&self, event: &str) -> bool {
        self.events.contains_key(event)
    }

    /// Whether the command takes this argument.
    pub fn has_argument(&self, command: &str, argument: &str) -> bool {
        let members = self.commands.get(command).and_then(|kind| self.members.get(kind));
        members.is_some_and(|members| members.iter().any(|member| member == argument))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::UnixListener,
    };

    /// A QEMU of a few lines: answers each command by `answer`, and nothing for `None`.
    fn serve(path: &Path, answer: impl Fn(&str, u64) -> Option<String> + Send + 'static) -> JoinHandle<()> {
        let listener = UnixListener::bind(path).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            write.write_all(b"{\"QMP\": {\"version\": {}}}\r\n").await.unwrap();
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let message: Value = serde_json::from_str(&line).unwrap();
                let (command, id) = (message["execute"].as_str().unwrap(), message["id"].as_u64().unwrap());
                if command == "hang-up" {
                    return;
                }
                let reply = match command {
                    "qmp_capabilities" => Some(json!({"return": {}, "id": id}).to_string()),
                    command => answer(command, id),
                };
                if let Some(reply) = reply {
                    write.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
                }
            }
        })
    }

    #[tokio::test]
    async fn replies_find_their_command_and_events_their_listener() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("qmp");
        let _server = serve(&path, |command, id| {
            let event = json!({"event": "STOP", "data": {"by": command}});
            Some(format!("{event}\r\n{}", json!({"return": {"ran": command}, "id": id})))
        });
        let qmp = Qmp::connect(&path, DEADLINE).await.unwrap();
        let mut events = qmp.events();
        let (one, two) = tokio::join!(qmp.execute("one", json!({})), qmp.execute("two", json!({})));
        assert_eq!((one.unwrap()["ran"].take(), two.unwrap()["ran"].take()), (json!("one"), json!("two")));
        let event = events.recv().await.unwrap();
        assert_eq!((event.name.as_str(), &event.data["by"]), ("STOP", &json!("one")));
    }

    #[tokio::test]
    async fn a_hung_qemu_costs_a_bounded_time_and_a_late_reply_harms_nobody() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("qmp");
        let _server = serve(&path, |command, id| match command {
            "silent" => None,
            // Answers the hung command first, late.
            _ => Some(format!(
                "{}\r\n{}",
                json!({"return": "late", "id": id - 1}),
                json!({"return": "now", "id": id})
            )),
        });
        let qmp = Qmp::connect(&path, DEADLINE).await.unwrap();
        let short = Duration::from_millis(50);
        let error = qmp.execute_with("silent", json!({}), &[], short).await.unwrap_err();
        assert!(matches!(error, QmpError::Timeout { after_ms: 50, .. }), "{error}");
        assert_eq!(qmp.execute("speak", json!({})).await.unwrap(), json!("now"));
    }

    #[tokio::test]
    async fn refusals_and_hang_ups_are_told_apart() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("qmp");
        let _server = serve(&path, |_, id| {
            Some(json!({"error": {"class": "GenericError", "desc": "no such thing"}, "id": id}).to_string())
        });
        let qmp = Qmp::connect(&path, DEADLINE).await.unwrap();
        let error = qmp.execute("frob", json!({})).await.unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused frob: no such thing");
        assert!(qmp.execute("hang-up", json!({})).await.unwrap_err().is_gone());
        qmp.wait_closed().await;
        assert!(qmp.execute("frob", json!({})).await.unwrap_err().is_gone());
        assert!(Qmp::connect(&scratch.path().join("none"), DEADLINE).await.unwrap_err().is_gone());
    }

    #[tokio::test]
    async fn a_socket_that_never_greets_is_given_up() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("qmp");
        let _listener = UnixListener::bind(&path).unwrap();
        let error = Qmp::connect(&path, Duration::from_millis(50)).await.unwrap_err();
        assert!(error.is_gone(), "{error}");
    }

    #[test]
    fn features_are_read_from_the_schema() {
        let features = Features::from_schema(&json!([
            {"name": "add-fd", "meta-type": "command", "arg-type": "7"},
            {"name": "7", "meta-type": "object", "members": [{"name": "fdset-id", "type": "int"}]},
            {"name": "STOP", "meta-type": "event"},
            {"name": "new", "meta-type": "something-new"},
        ]));
        assert!(features.has_command("add-fd") && !features.has_command("7") && features.has_event("STOP"));
        assert!(features.has_argument("add-fd", "fdset-id") && !features.has_argument("add-fd", "fd"));
    }
}
