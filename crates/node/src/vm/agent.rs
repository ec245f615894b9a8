//! A client of QEMU's guest agent: what runs inside the guest and may answer, lie, stall or flood.
//!
//! Each call makes a connection of its own, drops whatever an earlier caller left unread by the agent's delimited
//! sync, and asks one thing. Everything is bounded: time, bytes, list lengths, text lengths; control characters are
//! removed. Must never trust an answer: it is shown to people, and decides nothing but that.
//!
//! The caller makes sure that the guest has opened the port (`frontend-open` of `query-chardev`); a command that is
//! written before that would wait in the channel and be carried out at some later boot.
//!
//! Source: QEMU's qga/qapi-schema.json, `guest-sync-delimited`.

use model::instance::keys::{KeyChange, NamedKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{io, net::IpAddr, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{sleep, timeout},
};

use crate::driver::DriverError;

/// Deadline of a call when the caller names none.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// For a script in a guest, which may be emulated and busy, and how often its end is asked for.
const SCRIPT_MAX: Duration = Duration::from_secs(60);
const SCRIPT_PAUSE: Duration = Duration::from_millis(200);
/// Most bytes read in one call; the longest honest answer lists interfaces.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Most interfaces, and most addresses of one, that are believed.
const LIST_MAX: usize = 64;
/// Most characters of one text.
const TEXT_CHARS_MAX: usize = 128;
/// What the agent sends before the answer to a delimited sync.
const SENTINEL: u8 = 0xff;

/// Why the agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It is not running, or does not answer in time.
    #[error("the guest agent did not answer {command} within {after_ms} ms")]
    Timeout {
        /// The command.
        command: &'static str,
        /// The deadline in milliseconds.
        after_ms: u64,
    },
    /// The channel failed.
    #[error("the guest agent's channel failed during {command}")]
    Channel {
        /// The command.
        command: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// It answered with an error.
    #[error("the guest agent refused {command}: {description}")]
    Refused {
        /// The command.
        command: &'static str,
        /// Its words, cleaned.
        description: String,
    },
    /// It answered with something else than the protocol has.
    #[error("the guest agent answered {command} with nonsense")]
    Nonsense {
        /// The command.
        command: &'static str,
    },
}

impl From<AgentError> for DriverError {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Timeout { after_ms, .. } => {
                DriverError::Timeout { what: "the guest agent".to_owned(), after_ms }
            }
            AgentError::Channel { command, source } => {
                DriverError::Io { operation: format!("speaking to the guest agent ({command})"), source }
            }
            error => DriverError::Refused { operation: "guest agent".to_owned(), answer: error.to_string() },
        }
    }
}

/// What runs in the guest, in its own words (`guest-get-osinfo`, the fields of os-release(5)).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuestOs {
    /// `debian`, `mswindows`, …
    pub id: String,
    /// `Debian GNU/Linux`.
    pub name: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub pretty_name: String,
    /// `12 (bookworm)`.
    pub version: String,
    /// `6.1.0-18-cloud-amd64`.
    pub kernel_release: String,
    /// `x86_64`.
    pub machine: String,
}

/// A network interface as the guest sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuestInterface {
    /// `eth0`.
    pub name: String,
    /// `fa:16:3e:…`; empty for interfaces without.
    pub mac: String,
    /// Addresses, with the length of the prefix.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// How the guest shall go down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Power off.
    Powerdown,
    /// Restart.
    Reboot,
}

/// The agent of one guest, by its socket.
#[derive(Debug)]
pub struct Agent<'a> {
    socket: &'a Path,
    deadline: Duration,
}

impl<'a> Agent<'a> {
    /// An agent behind `socket`, each of whose calls ends within `deadline`. One call at a time: the channel knows one
    /// client.
    pub fn new(socket: &'a Path, deadline: Duration) -> Agent<'a> {
        Agent { socket, deadline }
    }

    /// Whether it is there.
    pub async fn ping(&self) -> Result<(), AgentError> {
        self.call("guest-ping", json!({})).await.map(drop)
    }

    /// Asks the guest to go down. The agent answers this command by silence, so success means that it was heard.
    pub async fn shutdown(&self, mode: ShutdownMode) -> Result<(), AgentError> {
        let command = "guest-shutdown";
        let mode = match mode {
            ShutdownMode::Powerdown => "powerdown",
            ShutdownMode::Reboot => "reboot",
        };
        let line = request(command, &json!({"mode": mode}));
        self.within(command, async {
            let mut channel = Channel::open(self.socket, command).await?;
            channel.send(command, &line).await
        })
        .await
    }

    /// What runs in the guest.
    pub async fn os_info(&self) -> Result<GuestOs, AgentError> {
        let answer = self.call("guest-get-osinfo", json!({})).await?;
        let field = |name: &str| clean(answer[name].as_str().unwrap_or_default());
        Ok(GuestOs {
            id: field("id"),
            name: field("name"),
            pretty_name: field("pretty-name"),
            version: field("version"),
            kernel_release: field("kernel-release"),
            machine: field("machine"),
        })
    }

    /// The guest's interfaces, without the loopback.
    pub async fn interfaces(&self) -> Result<Vec<GuestInterface>, AgentError> {
        let answer = self.call("guest-network-get-interfaces", json!({})).await?;
        let interfaces = answer.as_array().into_iter().flatten().take(LIST_MAX).map(interface);
        Ok(interfaces.filter(|interface| interface.name != "lo").collect())
    }

    /// Sets a user's password inside the guest (`guest-set-user-password`).
    pub async fn set_user_password(&self, user: &str, password: &str) -> Result<(), AgentError> {
        use base64::Engine as _;
        let password = base64::engine::general_purpose::STANDARD.encode(password);
        let arguments = json!({"username": user, "password": password, "crypted": false});
        self.call("guest-set-user-password", arguments).await.map(drop)
    }

    /// Lets the holders of these keys log in as `user`, or no more (`guest-ssh-*-authorized-keys`, which compare whole
    /// lines: so a key that was written with options or another comment is looked for first).
    pub async fn change_keys(&self, user: &str, change: &KeyChange) -> Result<(), AgentError> {
        if !change.remove.is_empty() {
            let gone = self.lines_with(user, &change.remove).await?;
            if !gone.is_empty() {
                let arguments = json!({"username": user, "keys": gone});
                self.call("guest-ssh-remove-authorized-keys", arguments).await?;
            }
        }
        if !change.add.is_empty() {
            let keys: Vec<&str> = change.add.iter().map(|(_, key)| key.trim()).collect();
            self.call("guest-ssh-add-authorized-keys", json!({"username": user, "keys": keys})).await?;
        }
        Ok(())
    }

    /// The user's lines that hold one of these keys.
    async fn lines_with(&self, user: &str, keys: &[NamedKey]) -> Result<Vec<String>, AgentError> {
        let asked = self.call("guest-ssh-get-authorized-keys", json!({"username": user})).await;
        let answer = match asked {
            Ok(answer) => answer,
            // That is how it says that there is no such file, too; and where nobody is let in, nobody is put out.
            Err(AgentError::Refused { description, .. }) if description.contains("No such file") => {
                Value::Null
            }
            Err(error) => return Err(error),
        };
        let lines = answer["keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let holds = |line: &&str| keys.iter().any(|(_, key)| is_key_of(line, key));
        Ok(lines.filter(holds).map(str::to_owned).collect())
    }

    /// Runs a shell script in the guest, as root, to its end, and gives its exit code (`guest-exec`, `guest-exec-status`).
    /// What it says is not read.
    pub async fn run_script(&self, script: &str) -> Result<i64, AgentError> {
        const STATUS: &str = "guest-exec-status";
        let arguments = json!({"path": "/bin/sh", "arg": ["-c", script]});
        let started = self.call("guest-exec", arguments).await?;
        let pid = started["pid"].as_i64().ok_or(AgentError::Nonsense { command: "guest-exec" })?;
        let ended = async {
            loop {
                let status = self.call(STATUS, json!({"pid": pid})).await?;
                if status["exited"] == Value::Bool(true) {
                    // One that a signal ended has no code.
                    return Ok(status["exitcode"].as_i64().unwrap_or(-1));
                }
                sleep(SCRIPT_PAUSE).await;
            }
        };
        let late = AgentError::Timeout { command: STATUS, after_ms: SCRIPT_MAX.as_millis() as u64 };
        timeout(SCRIPT_MAX, ended).await.unwrap_or(Err(late))
    }

    async fn call(&self, command: &'static str, arguments: Value) -> Result<Value, AgentError> {
        let line = request(command, &arguments);
        self.within(command, async {
            let mut channel = Channel::open(self.socket, command).await?;
            channel.send(command, &line).await?;
            let mut reply = channel.receive_line(command).await?;
            if let Some(result) = reply.get_mut("return") {
                return Ok(result.take());
            }
            match reply.pointer("/error/desc").and_then(Value::as_str) {
                Some(description) => Err(AgentError::Refused { command, description: clean(description) }),
                None => Err(AgentError::Nonsense { command }),
            }
        })
        .await
    }

    async fn within<T>(
        &self,
        command: &'static str,
        work: impl Future<Output = Result<T, AgentError>>,
    ) -> Result<T, AgentError> {
        let after_ms = self.deadline.as_millis() as u64;
        timeout(self.deadline, work).await.unwrap_or(Err(AgentError::Timeout { command, after_ms }))
    }
}

/// Whether a line of `authorized_keys` lets the holder of this key in, whatever its options and comment say (sshd(8)).
fn is_key_of(line: &str, key: &str) -> bool {
    let Some(blob) = key.split_whitespace().nth(1) else { return false };
    !line.trim_start().starts_with('#') && line.split_whitespace().any(|word| word == blob)
}

fn request(command: &str, arguments: &Value) -> Vec<u8> {
    let mut line = json!({"execute": command, "arguments": arguments}).to_string().into_bytes();
    line.push(b'\n');
    line
}

fn interface(value: &Value) -> GuestInterface {
    let addresses = value["ip-addresses"].as_array().into_iter().flatten().take(LIST_MAX);
    let address = |entry: &Value| {
        let address = entry["ip-address"].as_str()?.parse().ok()?;
        Some((address, u8::try_from(entry["prefix"].as_u64()?).ok()?))
    };
    GuestInterface {
        name: clean(value["name"].as_str().unwrap_or_default()),
        mac: clean(value["hardware-address"].as_str().unwrap_or_default()),
        addresses: addresses.filter_map(address).collect(),
    }
}

/// Text of a guest as it may be shown: no control characters, no end.
fn clean(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(TEXT_CHARS_MAX).collect()
}

/// A connection that is in step with the agent.
struct Channel {
    stream: UnixStream,
    buffer: Vec<u8>,
    taken_bytes: usize,
}

impl Channel {
    async fn open(socket: &Path, command: &'static str) -> Result<Channel, AgentError> {
        let failed = |source| AgentError::Channel { command, source };
        let stream = UnixStream::connect(socket).await.map_err(failed)?;
        let mut channel = Channel { stream, buffer: Vec::new(), taken_bytes: 0 };
        // Random, so that an answer to an earlier caller cannot pass for ours.
        let id: u32 = rand::random();
        // The sentinel makes the agent forget half a command that an earlier caller may have left.
        let mut line = vec![SENTINEL];
        line.extend(request("guest-sync-delimited", &json!({"id": id})));
        channel.send(command, &line).await?;
        loop {
            channel.skip_to_sentinel(command).await?;
            if channel.receive_line(command).await?["return"] == json!(id) {
                return Ok(channel);
            }
        }
    }

    async fn send(&mut self, command: &'static str, line: &[u8]) -> Result<(), AgentError> {
        self.stream.write_all(line).await.map_err(|source| AgentError::Channel { command, source })
    }

    async fn skip_to_sentinel(&mut self, command: &'static str) -> Result<(), AgentError> {
        loop {
            if let Some(place) = self.buffer.iter().position(|byte| *byte == SENTINEL) {
                self.buffer.drain(..=place);
                return Ok(());
            }
            self.buffer.clear();
            self.fill(command).await?;
        }
    }

    /// One line of JSON; a line that is none is nonsense, unless a sentinel within shows that it was cut short.
    async fn receive_line(&mut self, command: &'static str) -> Result<Value, AgentError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|_| AgentError::Nonsense { command });
            }
            self.fill(command).await?;
        }
    }

    async fn fill(&mut self, command: &'static str) -> Result<(), AgentError> {
        let count = self.stream.read_buf(&mut self.buffer).await;
        let count = count.map_err(|source| AgentError::Channel { command, source })?;
        self.taken_bytes += count;
        match count {
            0 => Err(AgentError::Channel { command, source: io::ErrorKind::UnexpectedEof.into() }),
            _ if self.taken_bytes > ANSWER_BYTES_MAX => Err(AgentError::Nonsense { command }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::{
        io::{AsyncBufReadExt, BufReader},
        net::UnixListener,
        task::JoinHandle,
    };

    /// An agent that first sends `stale`, as one would that was spoken to before, and answers each command by `answer`.
    fn serve(path: &Path, stale: &'static [u8], answer: fn(&str) -> String) -> JoinHandle<()> {
        let listener = UnixListener::bind(path).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (read, mut write) = stream.into_split();
                write.write_all(stale).await.unwrap();
                let mut lines = BufReader::new(read).split(b'\n');
                while let Ok(Some(line)) = lines.next_segment().await {
                    let start = line.iter().position(|byte| *byte == b'{').unwrap();
                    let message: Value = serde_json::from_slice(&line[start..]).unwrap();
                    let reply = match message["execute"].as_str().unwrap() {
                        "guest-sync-delimited" => {
                            let mut reply = vec![SENTINEL];
                            reply.extend(
                                json!({"return": message["arguments"]["id"]}).to_string().into_bytes(),
                            );
                            reply
                        }
                        command => answer(command).into_bytes(),
                    };
                    // A client that hangs up early is one of the cases.
                    let _ = write.write_all(&[reply, b"\n".to_vec()].concat()).await;
                }
            }
        })
    }

    async fn with_agent<T>(
        stale: &'static [u8],
        answer: fn(&str) -> String,
        call: impl AsyncFnOnce(Agent<'_>) -> T,
    ) -> T {
        let scratch = tempfile::tempdir().unwrap();
        let socket = scratch.path().join("agent");
        let server = serve(&socket, stale, answer);
        let result = call(Agent::new(&socket, Duration::from_millis(500))).await;
        server.abort();
        result
    }

    #[tokio::test]
    async fn stale_bytes_are_dropped_before_the_answer_is_read() {
        let stale = b"{\"return\": {\"id\": \"old\"}}\n\xff{\"return\": 1}\n{\"half";
        let answer =
            |_: &str| json!({"return": {"id": "debian", "pretty-name": "Debian\u{1b}[2J 12"}}).to_string();
        let os = with_agent(stale, answer, async |agent| agent.os_info().await).await.unwrap();
        assert_eq!((os.id.as_str(), os.pretty_name.as_str()), ("debian", "Debian[2J 12"));
    }

    #[tokio::test]
    async fn a_script_is_waited_for() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let answer = |command: &str| {
            let reply = match command {
                "guest-exec" => json!({"pid": 7}),
                _ if ASKED.fetch_add(1, Ordering::SeqCst) == 0 => json!({"exited": false}),
                _ => json!({"exited": true, "exitcode": 3}),
            };
            json!({"return": reply}).to_string()
        };
        let code = with_agent(b"", answer, async |agent| agent.run_script("exit 3").await).await.unwrap();
        assert_eq!((code, ASKED.load(Ordering::SeqCst)), (3, 2));
        let locked = |_: &str| json!({"error": {"desc": "Command guest-exec has been disabled"}}).to_string();
        let error = with_agent(b"", locked, async |agent| agent.run_script("true").await).await.unwrap_err();
        assert!(error.to_string().contains("has been disabled"), "{error}");
    }

    #[tokio::test]
    async fn floods_silence_and_nonsense_end_in_errors() {
        let flood = |_: &str| "x".repeat(2 * ANSWER_BYTES_MAX);
        let error = with_agent(b"", flood, async |agent| agent.ping().await).await.unwrap_err();
        assert!(matches!(error, AgentError::Nonsense { .. }), "{error}");
        let error = with_agent(b"", |_| "[]".into(), async |agent| agent.ping().await).await.unwrap_err();
        assert!(matches!(error, AgentError::Nonsense { .. }), "{error}");
        let refusal = |_: &str| json!({"error": {"desc": "not\nallowed"}}).to_string();
        let error = with_agent(b"", refusal, async |agent| agent.ping().await).await.unwrap_err();
        assert_eq!(error.to_string(), "the guest agent refused guest-ping: notallowed");
        let scratch = tempfile::tempdir().unwrap();
        let socket = scratch.path().join("agent");
        let _listener = UnixListener::bind(&socket).unwrap();
        let error = Agent::new(&socket, Duration::from_millis(50)).ping().await.unwrap_err();
        assert!(matches!(error, AgentError::Timeout { .. }), "{error}");
    }

    #[tokio::test]
    async fn keys_are_found_whatever_else_their_lines_say() {
        // Refuses to remove anything but the very line that it told of, as the real one would not find another.
        let answer = |command: &str| {
            let lines = ["no-pty ssh-ed25519 AAAA1 somebody@else", "ssh-ed25519 AAAA2"];
            let lists = command == "guest-ssh-get-authorized-keys";
            if lists { json!({"return": {"keys": lines}}) } else { json!({"return": {}}) }.to_string()
        };
        let key = |blob: &str| ("mine".to_string(), format!("ssh-ed25519 {blob} me@home"));
        let wanted = [key("AAAA1"), key("AAAA3")];
        let found = with_agent(b"", answer, async |agent| agent.lines_with("debian", &wanted).await).await;
        assert_eq!(found.unwrap(), ["no-pty ssh-ed25519 AAAA1 somebody@else"]);
        let change = KeyChange { add: vec![key("AAAA4")], remove: vec![key("AAAA2")] };
        with_agent(b"", answer, async |agent| agent.change_keys("debian", &change).await).await.unwrap();
        let none = |command: &str| {
            assert_eq!(command, "guest-ssh-get-authorized-keys", "nothing is removed where nothing is");
            let missing = "failed to read '/root/.ssh/authorized_keys': No such file or directory";
            json!({"error": {"desc": missing}}).to_string()
        };
        let change = KeyChange { add: vec![], remove: vec![key("AAAA2")] };
        with_agent(b"", none, async |agent| agent.change_keys("root", &change).await).await.unwrap();
    }

    #[tokio::test]
    async fn interfaces_are_read_and_what_cannot_be_an_address_is_left_out() {
        let answer = |_: &str| {
            json!({"return": [
                {"name": "lo"},
                {"name": "eth0", "hardware-address": "fa:16:3e:00:00:01", "ip-addresses": [
                    {"ip-address": "10.0.0.5", "prefix": 24},
                    {"ip-address": "nonsense", "prefix": 24},
                    {"ip-address": "fe80::1", "prefix": 640},
                ]},
            ]})
            .to_string()
        };
        let list = with_agent(b"", answer, async |agent| agent.interfaces().await).await.unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].addresses, [("10.0.0.5".parse().unwrap(), 24)]);
    }
}
