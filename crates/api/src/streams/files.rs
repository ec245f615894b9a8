//! What is asked and told of a container's files.

/// What lies at a path of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileStat {
    /// The last part of the path: `/` for the root, `.` where the path ends so.
    pub name: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Kind and permissions (inode(7)).
    pub mode: u32,
    /// Last change of its content: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Where a link leads in the end, as a path of the container; empty for all else.
    pub link_target: String,
}

/// Where an archive of files goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilesIn {
    /// Directory of the container; it must be there.
    pub path: String,
    /// A directory is not replaced by something else, nor something else by a directory.
    pub keeps_kinds: bool,
    /// All belongs to the container's user then, else to whom the archive says.
    pub as_user: bool,
}

/// What became of a file of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileChangeKind {
    /// It is another one, or something in it changed.
    Modified,
    /// It was not there.
    Added,
    /// It is gone.
    Deleted,
}

/// A file that differs from the image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Path in the container.
    pub path: String,
    /// What became of it.
    pub kind: FileChangeKind,
}
