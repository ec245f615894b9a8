//! A cloud of its own for each test: store in memory, fake guests, a real unix socket.

use api::{
    App,
    auth::LocalAccess,
    client::Client,
    server::unix::{SocketAccess, UnixServer},
    streams::{
        Attach, Download, Duplex, Exec, LogLine, LogWanted, Program, RegistryLogin, Session, Streams, Upload,
    },
};
use async_trait::async_trait;
use control::{Caller, Control, Error, Role, bootstrap::Beginning};
use jiff::Timestamp;
use model::{
    error::Code,
    id::{ImageId, InstanceId, NodeId},
    image::{Image, ImageContent, ImageState, ImageStatus},
    instance::{Instance, InstanceStatus, State},
    node::NodeStatus,
    usage::Peaks,
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use store::{Memory, Store, Tx};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::UnixStream,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// A running door.
pub struct House {
    pub control: Control,
    pub client: Client,
    pub app: App,
    pub socket: PathBuf,
    pub node: NodeId,
    pub guests: Arc<Guests>,
    pub stopping: CancellationToken,
    pub server: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

/// A public key for tests.
pub const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here";

impl House {
    pub async fn open() -> Self {
        Self::open_with(Control::new).await
    }

    /// The same with other rules or another clock.
    pub async fn open_with(control: impl FnOnce(Store) -> Control) -> Self {
        let store = Store::open(Arc::new(Memory::new()), control::schema::schema()).await.unwrap();
        let control = control(store);
        let beginning = Beginning { external_v4: "203.0.113.0/28".parse().unwrap(), external_v6: None };
        control.bootstrap(&beginning).await.unwrap();
        let node = NodeId::from_random([9; 16]);
        control.join_node(node, "here").await.unwrap();
        let mut tx = Tx::new();
        tx.put(&node_status(node));
        control.store().commit(tx).await.unwrap();

        let guests = Arc::new(Guests::new(control.clone(), node));
        let stopping = CancellationToken::new();
        let local = LocalAccess { own_uid: 0, group_role: Role::Member };
        let app = App::new(control.clone(), Arc::new(Reach(guests.clone())), local, stopping.clone());
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("holm.sock");
        let server = UnixServer::bind(&socket, SocketAccess::default()).await.unwrap();
        let server = tokio::spawn(server.serve(api::v1::router(app.clone()), stopping.clone()));
        Self {
            client: Client::unix(&socket),
            control,
            app,
            socket,
            node,
            guests,
            stopping,
            server,
            _directory: directory,
        }
    }

    /// A caller with this role in the project `default`.
    pub fn caller(&self, role: Role) -> Caller {
        let root = control::finalize::system_caller(model::id::ProjectId::from_random([0; 16]));
        let project = self.control.find_project(&root, "default").unwrap().record.meta.id;
        Caller { project, role, actor: "test".into(), request_id: "test".into(), proof: Default::default() }
    }

    /// A client with a token of this role in the project `default`.
    pub async fn as_role(&self, role: api::v1::types::token::Role) -> Client {
        let request = api::v1::types::token::CreateToken {
            name: format!("for-{}", role.as_str()),
            role,
            lifetime_s: None,
        };
        let made = self.client.create_token(&request).await.unwrap();
        Client::unix(&self.socket).with_token(made.secret)
    }

    /// Says what the node sees of an instance.
    pub async fn seen(&self, id: uuid::Uuid, state: State) {
        let id = InstanceId(id);
        let instance = self.control.get::<Instance>(id).unwrap();
        // By JSON, so that what a status may say beside this is as it is for an old record.
        let status: InstanceStatus = serde_json::from_value(serde_json::json!({
            "id": id,
            "node": self.node,
            "state": state,
            "boot": instance.record.boots,
            "ports": instance.record.ports,
            "volumes": instance.record.volumes,
            "at": Timestamp::now(),
        }))
        .unwrap();
        let mut tx = Tx::new();
        tx.put(&status);
        self.control.store().commit(tx).await.unwrap();
    }

    /// Sends raw bytes and reads all that comes until the server closes or `enough` is in it.
    pub async fn raw(&self, request: &str, enough: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let reading = async {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                got.extend_from_slice(&buffer[..count]);
                if String::from_utf8_lossy(&got).contains(enough) {
                    break;
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), reading).await.expect("an answer in time");
        String::from_utf8_lossy(&got).into_owned()
    }
}

fn node_status(id: NodeId) -> NodeStatus {
    NodeStatus {
        id,
        arch: "x86_64".into(),
        kernel: "6".into(),
        os: "test".into(),
        version: "0".into(),
        boot_id: "b".into(),
        cpus: 64,
        memory_mib: 262_144,
        disk_gib: 10_000,
        disk_free_gib: 10_000,
        accelerator: "tcg".into(),
        accelerator_reason: String::new(),
        qemu: "8".into(),
        facts: std::collections::BTreeMap::new(),
        at: Timestamp::now(),
    }
}

/// Guests that echo.
pub struct Guests {
    control: Control,
    node: NodeId,
    /// What programs were told: resizes and signals; and what was lent to pulls.
    pub told: Mutex<Vec<String>>,
    /// Programs whose client went away.
    pub abandoned: watch::Sender<u32>,
    /// Bytes of the last upload.
    pub uploaded: Mutex<Vec<u8>>,
    /// What instances were seen to use, by name.
    pub peaks: Mutex<BTreeMap<String, Peaks>>,
}

impl Guests {
    fn new(control: Control, node: NodeId) -> Self {
        Self {
            control,
            node,
            told: Mutex::default(),
            abandoned: watch::Sender::new(0),
            uploaded: Mutex::default(),
            peaks: Mutex::default(),
        }
    }
}

impl Guests {
    /// Writes what the node says of an image.
    pub async fn write(&self, image: &Image, state: ImageState) -> Result<(), Error> {
        let mut tx = Tx::new();
        let (id, node, at) = (image.meta.id, self.node, Timestamp::now());
        tx.put(&ImageStatus { id, node, state, asked: 0, stale: None, at });
        self.control.store().commit(tx).await.map_err(|e| Error::new(Code::Internal, e))?;
        Ok(())
    }
}

fn echo() -> Duplex {
    let (ours, mut theirs) = duplex(1024);
    tokio::spawn(async move {
        let (mut reader, mut writer) = tokio::io::split(&mut theirs);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    Box::new(ours)
}

/// The line to the guests.
struct Reach(Arc<Guests>);

struct Fake {
    guests: Arc<Guests>,
    end: watch::Receiver<Option<i32>>,
}

#[async_trait]
impl Program for Fake {
    async fn wait(&self) -> Result<i32, Error> {
        let mut end = self.end.clone();
        let code = *end.wait_for(Option::is_some).await.map_err(|e| Error::new(Code::Internal, e))?;
        Ok(code.expect("waited for"))
    }
    async fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        self.guests.told.lock().unwrap().push(format!("resize {rows} {columns}"));
        Ok(())
    }
    async fn signal(&self, signal: i32) -> Result<(), Error> {
        self.guests.told.lock().unwrap().push(format!("signal {signal}"));
        Ok(())
    }
    async fn abandon(&self) {
        self.guests.abandoned.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Streams for Reach {
    async fn peaks(&self, instance: &Instance) -> Option<Peaks> {
        self.0.peaks.lock().unwrap().get(instance.meta.name.as_str()).copied()
    }
    async fn console(&self, _instance: &Instance) -> Result<Duplex, Error> {
        Ok(echo())
    }

    async fn console_login(&self, instance: &Instance) -> Result<Duplex, Error> {
        self.0.told.lock().unwrap().push(format!("log in to {}", instance.meta.name));
        Ok(echo())
    }

    async fn vnc(&self, instance: &Instance) -> Result<Duplex, Error> {
        Err(Error::new(Code::Unsupported, format!("{} has no screen", instance.meta.name))
            .hint("use its console"))
    }

    /// Echoes its input to both outputs, and ends with the length of its input.
    async fn exec(&self, _instance: &Instance, exec: Exec) -> Result<Session, Error> {
        if exec.argv[0] == "missing" {
            return Err(Error::invalid("argv", "no such program"));
        }
        let (stdin, mut input) = duplex(64);
        let (mut output, stdout) = duplex(64);
        let (mut errors, stderr) = duplex(64);
        let (end_sender, end) = watch::channel(None);
        tokio::spawn(async move {
            let mut total = 0;
            let mut buffer = [0; 16];
            while let Ok(count @ 1..) = input.read(&mut buffer).await {
                total += i32::try_from(count).unwrap();
                let _ = output.write_all(&buffer[..count]).await;
            }
            let _ = errors.write_all(b"bye").await;
            drop((output, errors));
            let _ = end_sender.send(Some(total));
        });
        Ok(Session {
            stdin: Some(Box::new(stdin)),
            stdout: Some(Box::new(stdout)),
            stderr: Some(Box::new(stderr)),
            program: Arc::new(Fake { guests: Arc::clone(&self.0), end }),
        })
    }

    async fn attach(&self, instance: &Instance, _wanted: Attach) -> Result<Session, Error> {
        let exec = Exec {
            container: None,
            argv: vec!["main".into()],
            env: vec![],
            cwd: None,
            user: None,
            tty: false,
            stdin: true,
            size: None,
        };
        self.exec(instance, exec).await
    }

    async fn logs(&self, _instance: &Instance, wanted: LogWanted) -> Result<mpsc::Receiver<LogLine>, Error> {
        let (sender, receiver) = mpsc::channel(4);
        let first = wanted.tail_lines.map_or(0, |tail| 5_usize.saturating_sub(tail));
        tokio::spawn(async move {
            for number in first..5 {
                let bytes =
                    if number == 3 { vec![0xff, b'\n'] } else { format!("line {number}\n").into_bytes() };
                let line = LogLine {
                    time_ns: 1_700_000_000_000_000_000 + number as i64,
                    is_stderr: number % 2 == 1,
                    bytes,
                };
                if sender.send(line).await.is_err() {
                    return;
                }
            }
            if wanted.follow {
                sender.closed().await;
            }
        });
        Ok(receiver)
    }

    async fn console_log(&self, _instance: &Instance, bytes_max: usize) -> Result<Vec<u8>, Error> {
        let text = b"boot\nlogin:\n";
        Ok(text[text.len().saturating_sub(bytes_max)..].to_vec())
    }

    async fn upload(&self, image: &Image, mut upload: Upload) -> Result<(), Error> {
        let mut bytes = Vec::new();
        upload.body.read_to_end(&mut bytes).await.map_err(|e| Error::new(Code::Internal, e))?;
        let content = ImageContent {
            digest: format!("sha256:{}", "0".repeat(64)),
            size_bytes: bytes.len() as u64,
            virtual_bytes: bytes.len() as u64,
            ..ImageContent::default()
        };
        *self.0.uploaded.lock().unwrap() = bytes;
        self.0.write(image, ImageState::Ready(content)).await
    }

    fn lend_login(&self, _image: ImageId, login: RegistryLogin) -> Result<(), Error> {
        self.0.told.lock().unwrap().push(format!("lend {}", login.user));
        Ok(())
    }

    fn take_login_back(&self, _image: ImageId) {
        self.0.told.lock().unwrap().push("take back".into());
    }

    async fn stage(&self, image: &Image, mut upload: Upload) -> Result<(), Error> {
        let mut bytes = Vec::new();
        upload.body.read_to_end(&mut bytes).await.map_err(|e| Error::new(Code::Internal, e))?;
        let size_bytes = bytes.len() as u64;
        *self.0.uploaded.lock().unwrap() = bytes;
        self.0.write(image, ImageState::Staged { size_bytes }).await
    }

    async fn download(&self, _image: &Image, offset: u64) -> Result<Download, Error> {
        let bytes = self.0.uploaded.lock().unwrap().clone();
        let size_bytes = Some(bytes.len() as u64);
        let rest = bytes[usize::try_from(offset).unwrap()..].to_vec();
        Ok(Download { size_bytes, body: Box::new(std::io::Cursor::new(rest)) })
    }
}
