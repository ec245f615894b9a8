//! Messages of BuildKit's protocols, as far as they are spoken here: protocol buffers, written by hand.
//!
//! Source: BuildKit's `api/services/control/control.proto`, `api/types/worker.proto`, `frontend/gateway/pb/gateway.proto`,
//! `util/apicaps/pb/caps.proto`, `session/*/*.proto`; fsutil's `types/wire.proto` and `types/stat.proto`; Google's
//! `rpc/status.proto`. Fields that nothing here reads are left out: they are passed over as unknown ones.

use prost::Message;
use std::collections::BTreeMap;

/// A moment (`google.protobuf.Timestamp`).
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds behind them.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(at: jiff::Timestamp) -> Self {
        Self { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
    }
}

/// Something with the name of its type (`google.protobuf.Any`).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Any {
    /// Its type.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Its bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// How a call ended (`google.rpc.Status`).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RpcStatus {
    /// A code of gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What people are told.
    #[prost(string, tag = "2")]
    pub message: String,
    /// What programs are told.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// An empty message.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// `Control.Solve`: a build is asked for.
#[derive(Clone, PartialEq, Message)]
pub struct SolveRequest {
    /// Chosen by the client.
    #[prost(string, tag = "1")]
    pub reference: String,
    /// Steps as the client compiled them.
    #[prost(message, optional, tag = "2")]
    pub definition: Option<Definition>,
    /// What becomes of the result, as older clients say it.
    #[prost(string, tag = "3")]
    pub exporter: String,
    /// How.
    #[prost(btree_map = "string, string", tag = "4")]
    pub exporter_attributes: BTreeMap<String, String>,
    /// The client's session.
    #[prost(string, tag = "5")]
    pub session: String,
    /// What reads the input; empty if the client tells by the gateway.
    #[prost(string, tag = "6")]
    pub frontend: String,
    /// What it is told.
    #[prost(btree_map = "string, string", tag = "7")]
    pub frontend_attributes: BTreeMap<String, String>,
    /// Where steps are taken from and sent to beside the cloud's own cache.
    #[prost(message, optional, tag = "8")]
    pub cache: Option<CacheOptions>,
    /// What the client may want to be allowed.
    #[prost(string, repeated, tag = "9")]
    pub entitlements: Vec<String>,
    /// What becomes of the result.
    #[prost(message, repeated, tag = "13")]
    pub exporters: Vec<Exporter>,
}

/// Caches of steps elsewhere.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CacheOptions {
    /// Where they are sent to.
    #[prost(message, repeated, tag = "4")]
    pub exports: Vec<Exporter>,
    /// Where they are taken from.
    #[prost(message, repeated, tag = "5")]
    pub imports: Vec<Exporter>,
}

/// Steps as a client compiled them: they are not read.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Definition {
    /// Each of them.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub steps: Vec<Vec<u8>>,
}

/// What becomes of a result.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Exporter {
    /// `moby` is an image of this cloud. Of a cache: `registry`, `inline`, `local`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// How.
    #[prost(btree_map = "string, string", tag = "2")]
    pub attributes: BTreeMap<String, String>,
}

/// The end of a build.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SolveResponse {
    /// What its exporter tells.
    #[prost(btree_map = "string, string", tag = "1")]
    pub exporter: BTreeMap<String, String>,
}

/// `Control.Status`: how a build goes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StatusRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub reference: String,
}

/// A piece of how it goes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StatusResponse {
    /// Steps that began or ended.
    #[prost(message, repeated, tag = "1")]
    pub vertexes: Vec<Vertex>,
    /// What was done in them.
    #[prost(message, repeated, tag = "2")]
    pub statuses: Vec<VertexStatus>,
    /// What they say.
    #[prost(message, repeated, tag = "3")]
    pub logs: Vec<VertexLog>,
    /// What people should know.
    #[prost(message, repeated, tag = "4")]
    pub warnings: Vec<VertexWarning>,
}

/// Something that was done in a step.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VertexStatus {
    /// What.
    #[prost(string, tag = "1")]
    pub id: String,
    /// In which step.
    #[prost(string, tag = "2")]
    pub vertex: String,
    /// When this was told.
    #[prost(message, optional, tag = "6")]
    pub timestamp: Option<Timestamp>,
    /// When it began.
    #[prost(message, optional, tag = "7")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[prost(message, optional, tag = "8")]
    pub completed: Option<Timestamp>,
}

/// A step.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Vertex {
    /// Its id.
    #[prost(string, tag = "1")]
    pub digest: String,
    /// What it is called.
    #[prost(string, tag = "3")]
    pub name: String,
    /// It was done before.
    #[prost(bool, tag = "4")]
    pub cached: bool,
    /// When it began.
    #[prost(message, optional, tag = "5")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[prost(message, optional, tag = "6")]
    pub completed: Option<Timestamp>,
    /// Why it failed.
    #[prost(string, tag = "7")]
    pub error: String,
}

/// What a step says.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VertexLog {
    /// Which.
    #[prost(string, tag = "1")]
    pub vertex: String,
    /// When.
    #[prost(message, optional, tag = "2")]
    pub timestamp: Option<Timestamp>,
    /// 1 for its output, 2 for its errors.
    #[prost(int64, tag = "3")]
    pub stream: i64,
    /// What.
    #[prost(bytes = "vec", tag = "4")]
    pub message: Vec<u8>,
}

/// Something that people should know of a step.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VertexWarning {
    /// Which.
    #[prost(string, tag = "1")]
    pub vertex: String,
    /// How much it matters.
    #[prost(int64, tag = "2")]
    pub level: i64,
    /// What, in a line.
    #[prost(bytes = "vec", tag = "3")]
    pub short: Vec<u8>,
}

/// `Control.ListWorkers`: who builds here.
#[derive(Clone, PartialEq, Message)]
pub struct Workers {
    /// All of them.
    #[prost(message, repeated, tag = "1")]
    pub all: Vec<Worker>,
}

/// One that builds.
#[derive(Clone, PartialEq, Message)]
pub struct Worker {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// What it says of itself.
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: BTreeMap<String, String>,
    /// What it builds for.
    #[prost(message, repeated, tag = "3")]
    pub platforms: Vec<Platform>,
    /// What it is.
    #[prost(message, optional, tag = "5")]
    pub version: Option<Version>,
}

/// A system and an architecture.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Platform {
    /// As Go names it.
    #[prost(string, tag = "1")]
    pub architecture: String,
    /// `linux`.
    #[prost(string, tag = "2")]
    pub os: String,
}

/// `Control.Info`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Info {
    /// What answers.
    #[prost(message, optional, tag = "1")]
    pub version: Option<Version>,
}

/// What answers.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Version {
    /// A program.
    #[prost(string, tag = "1")]
    pub package: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Of its source.
    #[prost(string, tag = "3")]
    pub revision: String,
}

/// `Control.DiskUsage`, and the pieces of `Control.Prune`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Usage {
    /// All of it.
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<UsageRecord>,
}

/// A kept step.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UsageRecord {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// A build uses it now.
    #[prost(bool, tag = "3")]
    pub in_use: bool,
    /// Bytes that it has alone.
    #[prost(int64, tag = "4")]
    pub size: i64,
    /// When it was made.
    #[prost(message, optional, tag = "6")]
    pub created_at: Option<Timestamp>,
    /// When it was used last.
    #[prost(message, optional, tag = "7")]
    pub used_at: Option<Timestamp>,
    /// How often.
    #[prost(int64, tag = "8")]
    pub uses: i64,
    /// What it did.
    #[prost(string, tag = "9")]
    pub description: String,
    /// `regular`.
    #[prost(string, tag = "10")]
    pub kind: String,
    /// Others have its layers as well.
    #[prost(bool, tag = "11")]
    pub shared: bool,
}

/// `Control.Prune`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PruneRequest {
    /// What is meant.
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
    /// More than what nobody uses.
    #[prost(bool, tag = "2")]
    pub all: bool,
    /// Nanoseconds: only what was not used for so long.
    #[prost(int64, tag = "3")]
    pub keep_duration: i64,
    /// Bytes that stay.
    #[prost(int64, tag = "4")]
    pub reserved: i64,
    /// Bytes that may be used.
    #[prost(int64, tag = "5")]
    pub used_max: i64,
    /// Bytes that should be free.
    #[prost(int64, tag = "6")]
    pub free_min: i64,
}

/// `LLBBridge.Ping`: what is served.
#[derive(Clone, PartialEq, Message)]
pub struct Pong {
    /// Of the gateway.
    #[prost(message, repeated, tag = "1")]
    pub gateway: Vec<Capability>,
    /// Of compiled steps.
    #[prost(message, repeated, tag = "2")]
    pub steps: Vec<Capability>,
    /// Who builds.
    #[prost(message, repeated, tag = "3")]
    pub workers: Vec<Worker>,
}

/// Something that is served.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Capability {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
    /// It is.
    #[prost(bool, tag = "2")]
    pub enabled: bool,
}

/// `LLBBridge.Solve`: a build in the client's own build.
#[derive(Clone, PartialEq, Message)]
pub struct BridgeSolve {
    /// Steps as the client compiled them.
    #[prost(message, optional, tag = "1")]
    pub definition: Option<Definition>,
    /// What reads the input.
    #[prost(string, tag = "2")]
    pub frontend: String,
    /// What it is told.
    #[prost(btree_map = "string, string", tag = "3")]
    pub options: BTreeMap<String, String>,
    /// Inputs that the client compiled.
    #[prost(btree_map = "string, message", tag = "13")]
    pub inputs: BTreeMap<String, Definition>,
}

/// Its result.
#[derive(Clone, PartialEq, Message)]
pub struct BridgeSolved {
    /// What was made.
    #[prost(message, optional, tag = "3")]
    pub result: Option<Outcome>,
}

/// What was made.
#[derive(Clone, PartialEq, Message)]
pub struct Outcome {
    /// Its files.
    #[prost(message, optional, tag = "3")]
    pub reference: Option<Reference>,
    /// Beside them.
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// Files that were made.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Reference {
    /// Their id.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// `LLBBridge.Return`: the client's own build has ended.
#[derive(Clone, PartialEq, Message)]
pub struct ReturnRequest {
    /// With this.
    #[prost(message, optional, tag = "1")]
    pub result: Option<Outcome>,
    /// Or with this.
    #[prost(message, optional, tag = "2")]
    pub error: Option<RpcStatus>,
}

/// A piece of a stream of bytes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BytesMessage {
    /// Some of them.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: bytes::Bytes,
}

/// `Auth.Credentials` of a session.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CredentialsRequest {
    /// A registry.
    #[prost(string, tag = "1")]
    pub host: String,
}

/// A user of a registry. It is not printed.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct CredentialsResponse {
    /// Name.
    #[prost(string, tag = "1")]
    pub user: String,
    /// Password, or a token if there is no name.
    #[prost(string, tag = "2")]
    pub secret: String,
}

/// `Secrets.GetSecret` of a session.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SecretRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// A secret. It is not printed.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct SecretResponse {
    /// Its bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

/// `SSH.CheckAgent` of a session.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AgentRequest {
    /// Which agent.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// A packet of `FileSync.DiffCopy` of a session.
#[derive(Clone, PartialEq, Message)]
pub struct Packet {
    /// What it is: one of [`packet`].
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// Of a file; none at the end of all.
    #[prost(message, optional, tag = "2")]
    pub stat: Option<Stat>,
    /// Number of the file, in the order of the stats.
    #[prost(uint32, tag = "3")]
    pub id: u32,
    /// Content, or the text of an error.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: bytes::Bytes,
}

/// Kinds of packets.
pub mod packet {
    /// Of a file.
    pub const STAT: i32 = 0;
    /// A content is asked for.
    pub const REQUEST: i32 = 1;
    /// A piece of a content; an empty one ends it.
    pub const DATA: i32 = 2;
    /// All is done.
    pub const FINISH: i32 = 3;
    /// It failed.
    pub const ERROR: i32 = 4;
}

/// What a file is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Stat {
    /// Below the directory.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Kind and permissions, in Go's bits (`io/fs.FileMode`).
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Owner.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    /// Bytes.
    #[prost(int64, tag = "5")]
    pub size: i64,
    /// Last change, in nanoseconds since 1970.
    #[prost(int64, tag = "6")]
    pub changed_ns: i64,
    /// Where a symbolic link leads, or an earlier name of the same file.
    #[prost(string, tag = "7")]
    pub link: String,
    /// Extended attributes.
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub xattrs: BTreeMap<String, Vec<u8>>,
}
