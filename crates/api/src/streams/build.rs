//! What is asked and told of the files that images are built from.

use super::Reader;
use async_trait::async_trait;
use control::Error;
use model::dockerfile::ignore::Ignore;
use std::sync::Arc;

/// Whom copied files belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Owner {
    /// Root.
    #[default]
    Root,
    /// Whom they belong to already.
    Kept,
    /// This user and this group.
    Ids(u32, u32),
}

/// What of them is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pick {
    /// A path, or a pattern.
    pub pattern: String,
    /// Archives are unpacked.
    pub unpacks: bool,
    /// Whom it belongs to.
    pub owner: Owner,
    /// Permissions instead of the files' own.
    pub mode: Option<u32>,
}

/// Where it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Absolute path in the image.
    pub path: String,
    /// A file goes into it, and does not become it.
    pub is_directory: bool,
    /// It is not there: directories that are copied to it make it.
    pub is_new: bool,
    /// Directories that are not there and are made along the way, outermost first, absolute. They belong to whom the files do.
    pub made: Vec<String>,
    /// The archive ends behind it.
    pub is_last: bool,
    /// No time is later, in seconds since 1970.
    pub newest_s: Option<i64>,
}

/// A socket that is made for a program of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketAsked {
    /// Its name in the directory.
    pub name: &'static str,
    /// Permissions.
    pub mode: u32,
    /// Owner inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
}

/// What an entry of a list of files is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A regular file.
    File,
    /// Another name of an earlier file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// An entry of a list of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEntry {
    /// Its name, below the directory that is listed.
    pub path: String,
    /// What it is.
    pub kind: SourceKind,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file; 0 for one that is to come.
    pub size_bytes: u64,
    /// Last change, in seconds since 1970.
    pub mtime_s: i64,
    /// Where it leads, if it is a link.
    pub link: String,
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// Files that an image is built from.
#[async_trait]
pub trait SourceFiles: Send + Sync {
    /// What a path holds, if it is a file of at most so many bytes.
    async fn read(&self, path: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, Error>;
    /// The same files without those that are left out.
    async fn without(&self, ignore: Ignore) -> Result<Arc<dyn SourceFiles>, Error>;
    /// All of them, part by part of their paths in order: what lies in a directory comes behind it and before its next neighbour.
    /// The first of several names of a file is the file, the others are links to it.
    async fn list(&self) -> Result<Vec<SourceEntry>, Error>;
    /// At most so many bytes of a file of the list from `offset` on; none at its end.
    async fn read_at(&self, path: &str, offset: u64, bytes_max: usize) -> Result<Vec<u8>, Error>;
    /// What a pattern means among them.
    async fn pick(&self, asked: Pick) -> Result<Arc<dyn Picked>, Error>;
}

/// What a pattern means.
#[async_trait]
pub trait Picked: Send + Sync {
    /// How many things.
    fn count(&self) -> usize;
    /// SHA-256 of all that is copied, in hex.
    fn digest(&self) -> String;
    /// SHA-256 of the one file that was found, in hex.
    async fn sum(&self) -> Result<String, Error>;
    /// An archive of it, to be unpacked at the root of an image.
    fn send(&self, target: Target) -> Reader;
}
