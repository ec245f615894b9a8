//! What reaches into guests: consoles, programs, logs and image bytes.
//!
//! This door does not know the node's drivers; the binary joins the two by implementing [`Streams`] over them.
//! Access was checked before any of these is called. None may block, and all must end when their other side is
//! dropped.

mod build;
mod files;
mod images;
mod registry;

pub use build::{Owner, Pick, Picked, SocketAsked, SourceEntry, SourceFiles, SourceKind, Target};
pub use files::{FileChange, FileChangeKind, FileStat, FilesIn};
pub use images::{CommitAsked, ImageDetails, ImageIn, OfferedRoot};
pub use registry::{PushStep, RegistryLogin};

use async_trait::async_trait;
use control::Error;
use model::{
    error::Code,
    id::{ImageId, VolumeId},
    image::{Image, ImageContent, Reach},
    image_reference::Reference,
    instance::Instance,
    usage::Peaks,
};
use serde_json::Value;
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    sync::mpsc,
};

/// Bytes both ways.
pub trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A two-way stream of bytes.
pub type Duplex = Box<dyn Both>;
/// Bytes that come.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// Bytes that go.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A program with its standard streams.
pub struct Session {
    /// Its standard input; closed by dropping it.
    pub stdin: Option<Writer>,
    /// Its standard output, or its terminal.
    pub stdout: Option<Reader>,
    /// Its standard error.
    pub stderr: Option<Reader>,
    /// The program.
    pub program: Arc<dyn Program>,
}

/// A program that runs.
#[async_trait]
pub trait Program: Send + Sync {
    /// Waits for its exit code (128 and the signal's number after a signal). Safe to cancel.
    async fn wait(&self) -> Result<i32, Error>;
    /// Changes its terminal's size.
    async fn resize(&self, rows: u16, columns: u16) -> Result<(), Error>;
    /// Sends it a signal.
    async fn signal(&self, signal: i32) -> Result<(), Error>;
    /// The client is gone. A program of an exec ends; an attached container goes on.
    async fn abandon(&self) {}
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Container of the pod; the first when `None`.
    pub container: Option<String>,
    /// Program and arguments; not empty.
    pub argv: Vec<String>,
    /// Environment beside the container's.
    pub env: Vec<(String, String)>,
    /// Working directory; the container's when `None`.
    pub cwd: Option<String>,
    /// User; the container's when `None`.
    pub user: Option<String>,
    /// A terminal.
    pub tty: bool,
    /// Keep standard input open; else it is empty.
    pub stdin: bool,
    /// Size of the terminal: rows and columns.
    pub size: Option<(u16, u16)>,
}

/// How a container's own program is joined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attach {
    /// Container of the pod; the first when `None`.
    pub container: Option<String>,
    /// Send input on.
    pub input: bool,
    /// The program's input stays open when this client's ends.
    pub keeps_input: bool,
    /// Where it does not run now, wait for its next start and miss nothing of it.
    pub waits: bool,
}

/// What a running container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since its start in microseconds.
    pub cpu_usage_us: u64,
    /// Time that it was held back by its quota, in microseconds.
    pub cpu_throttled_us: u64,
    /// Memory in bytes, page cache included.
    pub memory_bytes: u64,
    /// The part of it that is page cache which was not used lately.
    pub memory_inactive_file_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// What has passed an interface of a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Its number: 0 is `eth0`.
    pub interface: usize,
    /// What the guest was sent.
    pub received: TrafficCount,
    /// What it sent.
    pub sent: TrafficCount,
}

/// One direction of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficCount {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were broken.
    pub errors: u64,
    /// Packets that nobody took.
    pub dropped: u64,
}

/// Bytes that passed between a running instance and its disks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskTraffic {
    /// What it read.
    pub read_bytes: u64,
    /// What it wrote.
    pub written_bytes: u64,
}

/// A process of a container, as its host sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Number on the host.
    pub pid: i32,
    /// Number of its parent.
    pub parent: i32,
    /// User on the host.
    pub uid: u32,
    /// Start in seconds since 1970.
    pub started_s: i64,
    /// Processor time in seconds.
    pub cpu_s: u64,
    /// It has a terminal.
    pub has_terminal: bool,
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogWanted {
    /// Container of the pod; the first when `None`.
    pub container: Option<String>,
    /// Only the last lines; all when `None`.
    pub tail_lines: Option<usize>,
    /// Only lines at or after this time, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Go on as new lines come.
    pub follow: bool,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Time in nanoseconds since 1970.
    pub time_ns: i64,
    /// It came by standard error.
    pub is_stderr: bool,
    /// Bytes with the line's end, if it had one.
    pub bytes: Vec<u8>,
}

/// An image's bytes on their way in.
pub struct Upload {
    /// How many there will be, where the client said.
    pub size_bytes: Option<u64>,
    /// SHA-256 that the client expects, in lower-case hex.
    pub sha256: Option<String>,
    /// The bytes. Reading fails, and the image must not be kept, if the client stalls or breaks off, sends more than
    /// is allowed, or if the bytes do not have the size or the hash that was promised.
    pub body: Reader,
}

/// An image's bytes on their way out.
pub struct Download {
    /// How many the image has in all; `None` for an archive that is made as it is read.
    pub size_bytes: Option<u64>,
    /// The bytes, from the offset that was asked for on.
    pub body: Reader,
}

/// What reaches into guests.
#[async_trait]
pub trait Streams: Send + Sync + 'static {
    /// The serial console (VM) or the first container's terminal.
    async fn console(&self, instance: &Instance) -> Result<Duplex, Error>;
    /// The serial console of a VM, with root logged in there as long as it is open.
    async fn console_login(&self, instance: &Instance) -> Result<Duplex, Error>;
    /// The screen, as RFB (RFC 6143).
    async fn vnc(&self, instance: &Instance) -> Result<Duplex, Error>;
    /// Runs a program in a container.
    async fn exec(&self, instance: &Instance, exec: Exec) -> Result<Session, Error>;
    /// Joins the standard streams of a container's own program. They end with it.
    async fn attach(&self, instance: &Instance, wanted: Attach) -> Result<Session, Error>;
    /// Sends a signal to the first process of the first container.
    async fn signal(&self, instance: &Instance, signal: i32) -> Result<(), Error> {
        Err(unserved(instance, &format!("signal {signal}")))
    }
    /// Changes the size of the first container's terminal.
    async fn resize(&self, instance: &Instance, _rows: u16, _columns: u16) -> Result<(), Error> {
        Err(unserved(instance, "the size of its terminal"))
    }
    /// What a running container uses.
    async fn usage(&self, instance: &Instance) -> Result<Usage, Error> {
        Err(unserved(instance, "what it uses"))
    }
    /// What has passed the interfaces of an instance; none where it does not run.
    async fn traffic(&self, _instance: &Instance) -> Vec<Traffic> {
        vec![]
    }
    /// What passed between an instance and its disks; `None` where it does not run, or nobody counts it.
    async fn disk_traffic(&self, _instance: &Instance) -> Option<DiskTraffic> {
        None
    }
    /// The highest use that was seen of an instance; `None` where nothing is known.
    async fn peaks(&self, _instance: &Instance) -> Option<Peaks> {
        None
    }
    /// The processes of a running container.
    async fn processes(&self, instance: &Instance) -> Result<Vec<Process>, Error> {
        Err(unserved(instance, "its processes"))
    }
    /// What lies at a path of a container, whether it runs or not.
    async fn file_stat(&self, instance: &Instance, _path: &str) -> Result<FileStat, Error> {
        Err(unserved(instance, "its files"))
    }
    /// What lies at a path of a container, with all below it, as a tar. Reading fails where the files cannot be read.
    async fn files_out(&self, instance: &Instance, _path: &str) -> Result<(FileStat, Reader), Error> {
        Err(unserved(instance, "its files"))
    }
    /// Unpacks a tar in a container.
    async fn files_in(&self, instance: &Instance, _into: FilesIn, _archive: Reader) -> Result<(), Error> {
        Err(unserved(instance, "its files"))
    }
    /// What a container changed of its image's files.
    async fn file_changes(&self, instance: &Instance) -> Result<Vec<FileChange>, Error> {
        Err(unserved(instance, "its files"))
    }
    /// Bytes of the files that a container wrote, those of its volumes left out.
    async fn written_bytes(&self, instance: &Instance) -> Result<u64, Error> {
        Err(unserved(instance, "its files"))
    }
    /// All files of a container but those of its volumes, as a tar.
    async fn export(&self, instance: &Instance) -> Result<Reader, Error> {
        Err(unserved(instance, "its files"))
    }
    /// Lines of a container's log, oldest first, until the end or the receiver is dropped.
    async fn logs(&self, instance: &Instance, wanted: LogWanted) -> Result<mpsc::Receiver<LogLine>, Error>;
    /// The last bytes that the console showed, at most `bytes_max`.
    async fn console_log(&self, instance: &Instance, bytes_max: usize) -> Result<Vec<u8>, Error>;
    /// Takes an image's bytes, and returns when they are kept for good and the image's status says so.
    async fn upload(&self, image: &Image, upload: Upload) -> Result<(), Error>;
    /// Lays an image's bytes ready for an import; as [`Self::upload`], but nothing looks at them.
    async fn stage(&self, image: &Image, upload: Upload) -> Result<(), Error>;
    /// What an image of containers says of itself.
    async fn image_details(&self, _content: &ImageContent) -> Result<ImageDetails, Error> {
        Err(no_images())
    }
    /// Images of containers with these names, as one archive.
    async fn images_out(&self, _wanted: Vec<(ImageContent, Vec<Reference>)>) -> Result<Reader, Error> {
        Err(no_images())
    }
    /// Takes all images of an archive.
    async fn images_in(&self, _archive: Reader) -> Result<Vec<ImageIn>, Error> {
        Err(no_images())
    }
    /// Makes an image of one layer, a tar of a root file system. Its config lacks `rootfs`.
    async fn image_of_root(&self, _root: Reader, _config: Value) -> Result<ImageIn, Error> {
        Err(no_images())
    }
    /// Makes an image with the layers of `base` and another config, which lacks `rootfs`.
    async fn image_of_config(&self, _base: &ImageContent, _config: Value) -> Result<ImageIn, Error> {
        Err(no_images())
    }
    /// Keeps an archive as files that an image is built from, below a path. They go with the last that has them.
    async fn source_archive(&self, _archive: Reader, _at: &str) -> Result<Arc<dyn SourceFiles>, Error> {
        Err(no_images())
    }
    /// The same with a list of files. Their contents come in its order: for each regular file its pieces, each behind its
    /// length (4 bytes, little-endian), and a length of 0.
    async fn source_listed(
        &self,
        _entries: Vec<SourceEntry>,
        _contents: Reader,
    ) -> Result<Arc<dyn SourceFiles>, Error> {
        Err(no_images())
    }
    /// The same with one file.
    async fn source_file(&self, _name: &str, _content: Vec<u8>) -> Result<Arc<dyn SourceFiles>, Error> {
        Err(no_images())
    }
    /// The same with a file of the web, from hosts that the operator allows.
    async fn source_web(&self, _url: &str, _name: &str) -> Result<Arc<dyn SourceFiles>, Error> {
        Err(no_images())
    }
    /// Listens on a new socket in a volume that is a directory. The socket's file stays when nobody listens any more.
    async fn volume_socket(&self, _volume: VolumeId, _asked: SocketAsked) -> Result<UnixListener, Error> {
        Err(Error::new(Code::Unsupported, "files of volumes cannot be reached"))
    }
    /// Makes an image of what a container changed of `base`. The config lacks `rootfs`.
    async fn commit(
        &self,
        instance: &Instance,
        _base: &ImageContent,
        _config: Value,
        _asked: CommitAsked,
    ) -> Result<ImageIn, Error> {
        Err(unserved(instance, "its files"))
    }
    /// Whether a registry knows a user: `forbidden` if not.
    async fn registry_login(
        &self,
        _registry: &str,
        _login: RegistryLogin,
        _reach: Reach,
    ) -> Result<(), Error> {
        Err(no_images())
    }
    /// Lends credentials to the next pull of an image. They are kept in memory, and forgotten when it has ended.
    fn lend_login(&self, _image: ImageId, _login: RegistryLogin) -> Result<(), Error> {
        Err(no_images())
    }
    /// Takes lent credentials back: the pull that they were for does not come.
    fn take_login_back(&self, _image: ImageId) {}
    /// Sends an image to a registry under a name. It ends when nobody hears its steps any more.
    async fn push(
        &self,
        _content: &ImageContent,
        _reference: &Reference,
        _login: Option<RegistryLogin>,
        _reach: Reach,
    ) -> Result<mpsc::Receiver<PushStep>, Error> {
        Err(no_images())
    }
    /// The sums of a root file system that everybody may have, and the description beside it; `metadata` is its text.
    async fn offer_root(&self, _image: &Image, _metadata: String) -> Result<OfferedRoot, Error> {
        Err(no_images())
    }
    /// An image's bytes as they were sent (an archive of what a registry gave), from `offset` on.
    async fn download(&self, image: &Image, offset: u64) -> Result<Download, Error>;
}

fn no_images() -> Error {
    Error::new(Code::Unsupported, "images of containers cannot be reached")
}

fn unserved(instance: &Instance, what: &str) -> Error {
    Error::new(Code::Unsupported, format!("{}: {what} cannot be reached", instance.meta.name))
}
