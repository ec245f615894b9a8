//! Files that an image is built from: a context that a client sent, what lies in another image, a file of the web.
//!
//! They come as an archive and stay one. It is kept in a file without a name, which goes with its last descriptor, however
//! the daemon ends; its names are an index in memory and are never walked on this host. So a link or a `..` in it leads to
//! another entry of it, or nowhere.
//!
//! ```text
//!   archive ── plain bytes ──▶ a file without a name        pick: what patterns mean ── digest, for the key of a step
//!                 └── index: path → kind, mode, place                                └── an archive of it, under its target
//! ```

mod pick;

pub use pick::{Owner, Pick, Picked, Target};

use super::{
    compression::{CompressionError, decompress_any},
    pipe::{Body, Taker},
    reconcile::Images,
    tar::{Entry, Kind, TarError, TarReader},
    upload::fault,
};
use crate::instance::sentence;
use model::{
    dockerfile::ignore::Ignore,
    error::{Code, Fault},
};
use rustix::fs as rfs;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex},
};
use tokio_util::sync::CancellationToken;

/// Most bytes of an archive, unpacked.
pub const SOURCE_BYTES_MAX: u64 = 32 << 30;
/// Most entries.
pub const ENTRIES_MAX: usize = 250_000;
/// Most bytes of all names together.
pub const NAMES_BYTES_MAX: usize = 32 << 20;
/// Deepest directory.
pub const DEPTH_MAX: usize = 255;
/// Bytes between two looks at the free space.
const ROOM_CHECK_BYTES: u64 = 64 << 20;
/// Bytes that stay free.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// Why files cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The archive is damaged.
    #[error("the archive cannot be read")]
    Archive(#[from] TarError),
    /// It is compressed in a way that is not known.
    #[error("the archive cannot be read")]
    Compression(#[from] CompressionError),
    /// An entry is none that a build can have.
    #[error("the entry {entry:?} {why}")]
    Entry {
        /// Its name.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A limit was passed.
    #[error("there are more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// There is nothing under this path.
    #[error("file not found in build context or excluded by .dockerignore: stat {0}: file does not exist")]
    Missing(String),
    /// It leads out.
    #[error("forbidden path outside the build context: {0}")]
    Outside(String),
    /// Links that lead to each other.
    #[error("too many levels of symbolic links: {0}")]
    Loop(String),
    /// The file system is nearly full.
    #[error("there is no room: {FREE_BYTES_MIN} bytes must stay free")]
    NoRoom,
    /// The system failed.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl SourceError {
    pub(super) fn fault(&self) -> Fault {
        let code = match self {
            Self::Compression(CompressionError::Missing(_)) => Code::Unsupported,
            Self::Archive(_)
            | Self::Compression(_)
            | Self::Entry { .. }
            | Self::Outside(_)
            | Self::Loop(_) => Code::Invalid,
            Self::Missing(_) => Code::NotFound,
            Self::Limit { .. } => Code::TooLarge,
            Self::NoRoom => Code::NoCapacity,
            Self::Io { .. } => Code::Internal,
        };
        let hint = match self {
            Self::Limit { .. } => "leave out by .dockerignore what the image does not need",
            Self::Outside(_) => "copy what is needed into the context",
            Self::NoRoom => "remove images that nobody uses, or prune the build cache",
            Self::Compression(CompressionError::Missing(missing)) => {
                return fault(code, sentence(self), missing.hint());
            }
            _ => "",
        };
        fault(code, sentence(self), hint)
    }
}

fn io_at(operation: &'static str) -> impl FnOnce(io::Error) -> SourceError {
    move |source| SourceError::Io { operation, source }
}

/// One entry of the index.
#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    mode: u32,
    uid: u64,
    gid: u64,
    mtime_s: i64,
    link: Vec<u8>,
    /// Where its content begins in the file, and its length.
    place: (u64, u64),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Node {
    fn directory() -> Self {
        Self {
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime_s: 0,
            link: vec![],
            place: (0, 0),
            xattrs: vec![],
        }
    }

    fn of(entry: Entry, at: u64) -> Self {
        Self {
            kind: entry.kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime_s: entry.mtime.0,
            link: entry.link,
            place: (at, entry.size_bytes),
            xattrs: entry.xattrs,
        }
    }
}

type Index = BTreeMap<Vec<u8>, Node>;

/// Files that an image is built from.
#[derive(Debug, Clone)]
pub struct SourceFiles {
    file: Arc<File>,
    index: Arc<Index>,
    /// SHA-256 of contents by their place, so that nothing is read twice.
    sums: Arc<Mutex<BTreeMap<(u64, u64), String>>>,
}

/// A reader that writes what it reads to a file, and counts it.
struct Keeping<R> {
    input: R,
    output: BufWriter<File>,
    count: u64,
    checked_at: u64,
}

impl<R: Read> Read for Keeping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.output.write_all(&buffer[..count])?;
        self.count += count as u64;
        if self.count > SOURCE_BYTES_MAX {
            return Err(io::Error::other(SourceError::Limit { what: "bytes", limit: SOURCE_BYTES_MAX }));
        }
        if self.count >= self.checked_at {
            self.checked_at = self.count + ROOM_CHECK_BYTES;
            let stat = rfs::fstatvfs(self.output.get_ref())?;
            if stat.f_bavail.saturating_mul(stat.f_frsize) < FREE_BYTES_MIN {
                return Err(io::Error::other(SourceError::NoRoom));
            }
        }
        Ok(count)
    }
}

impl<R: Read> Keeping<R> {
    /// Keeps the pieces of one content, and gives its bytes.
    fn keep_pieces(&mut self) -> io::Result<u64> {
        let before = self.count;
        loop {
            let mut length = [0; 4];
            self.input.read_exact(&mut length)?;
            let length = u64::from(u32::from_le_bytes(length));
            if length == 0 {
                return Ok(self.count - before);
            }
            if io::copy(&mut self.by_ref().take(length), &mut io::sink())? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl SourceFiles {
    /// Reads an archive, whose entries lie below `at`. Blocking.
    fn read_archive(
        directory: &Path,
        archive: impl Read + Send + 'static,
        at: &[u8],
    ) -> Result<Self, SourceError> {
        let file = tempfile::tempfile_in(directory).map_err(io_at("keep the archive"))?;
        let output =
            BufWriter::with_capacity(256 << 10, file.try_clone().map_err(io_at("keep the archive"))?);
        let input = BufReader::with_capacity(256 << 10, decompress_any(archive)?);
        let mut reader = TarReader::new(Keeping { input, output, count: 0, checked_at: 0 });
        let mut indexing = Indexing { index: Index::new(), names_bytes: 0, at };
        while let Some(entry) = reader.next_entry()? {
            let here = reader.position().count;
            indexing.add(entry, here)?;
        }
        let mut kept = reader.into_inner();
        // A client waits until all that it sent was read.
        io::copy(&mut kept.input, &mut io::sink()).map_err(io_at("read the archive's end"))?;
        kept.output.flush().map_err(io_at("keep the archive"))?;
        Ok(Self::new(file, indexing.index))
    }

    /// Keeps a list of files. The contents of its regular files come in its order: for each its pieces, each behind its
    /// length (4 bytes, little-endian), and a length of 0. Blocking.
    fn of_list(directory: &Path, entries: Vec<Entry>, contents: impl Read) -> Result<Self, SourceError> {
        let failed = || io_at("keep the files");
        let file = tempfile::tempfile_in(directory).map_err(failed())?;
        let output = BufWriter::with_capacity(256 << 10, file.try_clone().map_err(failed())?);
        let input = BufReader::with_capacity(256 << 10, contents);
        let mut keeping = Keeping { input, output, count: 0, checked_at: 0 };
        let mut indexing = Indexing { index: Index::new(), names_bytes: 0, at: b"" };
        // Names first: of a list that cannot be, no content is read.
        for entry in &entries {
            indexing.add(entry.clone(), 0)?;
        }
        for entry in &entries {
            let path = indexing.path(entry, &entry.path)?;
            let place = match entry.kind {
                Kind::File => {
                    let here = keeping.count;
                    (here, keeping.keep_pieces().map_err(failed())?)
                }
                Kind::HardLink => {
                    let target = indexing.path(entry, &entry.link)?;
                    indexing.index.get(&target).map_or((0, 0), |node| node.place)
                }
                _ => continue,
            };
            if let Some(node) = indexing.index.get_mut(&path) {
                node.place = place;
            }
        }
        keeping.output.flush().map_err(failed())?;
        Ok(Self::new(file, indexing.index))
    }

    fn new(file: File, index: Index) -> Self {
        Self { file: Arc::new(file), index: Arc::new(index), sums: Arc::default() }
    }

    /// One file.
    fn of_file(
        directory: &Path,
        name: &str,
        mode: u32,
        mtime_s: i64,
        content: &mut dyn Read,
    ) -> Result<Self, SourceError> {
        let file = tempfile::tempfile_in(directory).map_err(io_at("keep a file"))?;
        let output = BufWriter::with_capacity(256 << 10, file.try_clone().map_err(io_at("keep a file"))?);
        let mut keeping = Keeping { input: content, output, count: 0, checked_at: 0 };
        io::copy(&mut keeping, &mut io::sink()).map_err(io_at("keep a file"))?;
        keeping.output.flush().map_err(io_at("keep a file"))?;
        let node = Node { kind: Kind::File, mode, mtime_s, place: (0, keeping.count), ..Node::directory() };
        Ok(Self::new(file, Index::from([(name.as_bytes().to_vec(), node)])))
    }

    /// What a path holds, if it is a file.
    ///
    /// # Errors
    /// It is longer than `bytes_max`, or leads nowhere.
    pub fn read(&self, path: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, Fault> {
        self.read_file(path, bytes_max).map_err(|error| error.fault())
    }

    fn read_file(&self, path: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let found = match self.resolve(path) {
            Ok(found) => found,
            Err(SourceError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(node) = self.index.get(&found).filter(|node| node.kind == Kind::File) else {
            return Ok(None);
        };
        if node.place.1 > bytes_max {
            return Err(SourceError::Limit { what: "bytes in it", limit: bytes_max });
        }
        let mut content = vec![0; node.place.1 as usize];
        self.file.read_exact_at(&mut content, node.place.0).map_err(io_at("read the archive"))?;
        Ok(Some(content))
    }

    /// All of them, part by part of their paths in order. The first of several names of a file is the file, the others are links to
    /// it. Blocking.
    pub fn list(&self) -> Vec<Entry> {
        let mut paths: Vec<&Vec<u8>> = self.index.keys().collect();
        paths.sort_by(|a, b| a.split(|byte| *byte == b'/').cmp(b.split(|byte| *byte == b'/')));
        let mut named: BTreeMap<(u64, u64), &[u8]> = BTreeMap::new();
        let mut all = Vec::with_capacity(paths.len());
        for path in paths {
            let node = &self.index[path];
            let mut entry = Entry {
                path: path.clone(),
                link: node.link.clone(),
                kind: node.kind,
                mode: node.mode,
                uid: node.uid,
                gid: node.gid,
                size_bytes: 0,
                mtime: (node.mtime_s, 0),
                xattrs: node.xattrs.clone(),
            };
            if node.kind == Kind::File {
                entry.size_bytes = node.place.1;
                // Files share no bytes but those that are one; of empty ones nobody can tell.
                match named.get(&node.place).filter(|_| node.place.1 > 0) {
                    Some(first) => (entry.kind, entry.link) = (Kind::HardLink, first.to_vec()),
                    None => drop(named.insert(node.place, path)),
                }
            }
            all.push(entry);
        }
        all
    }

    /// At most so many bytes of a file, by its very path, from `offset` on; none at its end. Blocking.
    ///
    /// # Errors
    /// There is no such file.
    pub fn read_at(&self, path: &str, offset: u64, bytes_max: usize) -> Result<Vec<u8>, Fault> {
        let node = self.index.get(path.as_bytes()).filter(|node| node.kind == Kind::File);
        let node = node.ok_or_else(|| SourceError::Missing(path.to_string()).fault())?;
        let left = node.place.1.saturating_sub(offset);
        let mut content = vec![0; left.min(bytes_max as u64) as usize];
        let read = self.file.read_exact_at(&mut content, node.place.0 + offset);
        read.map_err(|error| io_at("read the archive")(error).fault())?;
        Ok(content)
    }

    /// The same files without those that a `.dockerignore` leaves out. Blocking.
    #[must_use]
    pub fn without(&self, ignore: &Ignore) -> Self {
        let mut kept: BTreeSet<&[u8]> = BTreeSet::new();
        for path in self.index.keys() {
            if ignore.leaves_out(&String::from_utf8_lossy(path)) {
                continue;
            }
            // Directories above what stays have to be there.
            let mut end = path.len();
            while kept.insert(&path[..end])
                && let Some(slash) = path[..end].iter().rposition(|byte| *byte == b'/')
            {
                end = slash;
            }
        }
        let index = self.index.iter().filter(|(path, _)| kept.contains(path.as_slice()));
        let index = index.map(|(path, node)| (path.clone(), node.clone())).collect();
        Self { file: Arc::clone(&self.file), index: Arc::new(index), sums: Arc::clone(&self.sums) }
    }
}

/// An index that is being made.
struct Indexing<'a> {
    index: Index,
    names_bytes: usize,
    at: &'a [u8],
}

impl Indexing<'_> {
    fn add(&mut self, mut entry: Entry, here: u64) -> Result<(), SourceError> {
        let path = self.path(&entry, &entry.path)?;
        if path.is_empty() {
            return Ok(());
        }
        if entry.kind == Kind::HardLink {
            let target = self.path(&entry, &entry.link)?;
            let linked = self.index.get(&target).filter(|node| node.kind == Kind::File).cloned();
            let linked = linked.ok_or_else(|| wrong(&entry, "is a link to a file that is not there"))?;
            return self.put(&entry, path, linked);
        }
        let node = Node::of(std::mem::replace(&mut entry, bare(&path)), here);
        self.put(&entry, path, node)
    }

    fn put(&mut self, entry: &Entry, path: Vec<u8>, node: Node) -> Result<(), SourceError> {
        let mut end = 0;
        while let Some(slash) = path[end..].iter().position(|byte| *byte == b'/') {
            let above = &path[..end + slash];
            match self.index.get(above) {
                Some(node) if node.kind == Kind::Directory => {}
                Some(_) => return Err(wrong(entry, "lies in something that is no directory")),
                None => {
                    let above = above.to_vec();
                    self.count(&above)?;
                    self.index.insert(above, Node::directory());
                }
            }
            end += slash + 1;
        }
        let replaces_directory = |old: &Node| old.kind == Kind::Directory && node.kind != Kind::Directory;
        if self.index.get(&path).is_some_and(replaces_directory) {
            return Err(wrong(entry, "comes in the place of a directory"));
        }
        self.count(&path)?;
        self.index.insert(path, node);
        Ok(())
    }

    fn count(&mut self, path: &[u8]) -> Result<(), SourceError> {
        self.names_bytes += path.len();
        if self.index.len() >= ENTRIES_MAX {
            return Err(SourceError::Limit { what: "files", limit: ENTRIES_MAX as u64 });
        }
        if self.names_bytes > NAMES_BYTES_MAX {
            return Err(SourceError::Limit { what: "bytes of names", limit: NAMES_BYTES_MAX as u64 });
        }
        Ok(())
    }

    /// The parts of a name below the place of the archive.
    fn path(&self, entry: &Entry, name: &[u8]) -> Result<Vec<u8>, SourceError> {
        let mut parts: Vec<&[u8]> = vec![];
        for part in self.at.split(|byte| *byte == b'/').chain(name.split(|byte| *byte == b'/')) {
            match part {
                b"" | b"." => {}
                b".." => return Err(wrong(entry, "leads out of the directory")),
                part => parts.push(part),
            }
        }
        if parts.len() > DEPTH_MAX {
            return Err(SourceError::Limit { what: "levels of directories", limit: DEPTH_MAX as u64 });
        }
        Ok(parts.join(&b'/'))
    }
}

fn bare(path: &[u8]) -> Entry {
    Entry {
        path: path.to_vec(),
        link: vec![],
        kind: Kind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        size_bytes: 0,
        mtime: (0, 0),
        xattrs: vec![],
    }
}

fn wrong(entry: &Entry, why: &'static str) -> SourceError {
    SourceError::Entry { entry: String::from_utf8_lossy(&entry.path).chars().take(400).collect(), why }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(io_at("end the work")(io::Error::other("a step panicked"))))
        .map_err(|e| e.fault())
}

impl Images {
    /// Keeps an archive (plain, or compressed by gzip, zstd, bzip2 or xz) as files that an image is built from, below `at`.
    ///
    /// # Errors
    /// What is wrong with the archive.
    pub async fn source_archive(&self, archive: Body, at: &str) -> Result<SourceFiles, Fault> {
        let (directory, at) = (self.disks.images_dir().to_path_buf(), at.as_bytes().to_vec());
        let input = Taker::new(archive, CancellationToken::new());
        blocking(move || SourceFiles::read_archive(&directory, input, &at)).await
    }

    /// The same with a list of files. The contents of its regular files come in its order: for each its pieces, each
    /// behind its length (4 bytes, little-endian), and a length of 0.
    ///
    /// # Errors
    /// What is wrong with the list, or contents that end early.
    pub async fn source_listed(&self, entries: Vec<Entry>, contents: Body) -> Result<SourceFiles, Fault> {
        let directory = self.disks.images_dir().to_path_buf();
        let input = Taker::new(contents, CancellationToken::new());
        blocking(move || SourceFiles::of_list(&directory, entries, input)).await
    }

    /// The same with one file.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn source_file(&self, name: &str, content: Vec<u8>) -> Result<SourceFiles, Fault> {
        let (directory, name) = (self.disks.images_dir().to_path_buf(), name.to_string());
        blocking(move || SourceFiles::of_file(&directory, &name, 0o644, 0, &mut &content[..])).await
    }

    /// The same with a file of the web, from hosts that the operator allows.
    ///
    /// # Errors
    /// The host is not allowed, or does not give it.
    pub async fn source_web(&self, url: &str, name: &str) -> Result<SourceFiles, Fault> {
        let told = |error: super::registry::WebError| {
            let code = if error.is_refusal() { Code::Forbidden } else { Code::Unavailable };
            fault(code, format!("{url} could not be fetched: {}", sentence(&error)), error.hint())
        };
        let (body, _) = self.web.get(url).await.map_err(told)?;
        let (directory, name) = (self.disks.images_dir().to_path_buf(), name.to_string());
        let mut input = Taker::new(Box::new(body), CancellationToken::new());
        blocking(move || SourceFiles::of_file(&directory, &name, 0o600, 0, &mut input)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(kind: Kind, path: &str, link: &str) -> Entry {
        Entry { kind, link: link.as_bytes().to_vec(), mode: 0o644, ..bare(path.as_bytes()) }
    }

    /// Contents with each byte string as two pieces.
    fn framed(contents: &[&str]) -> Vec<u8> {
        let mut all = vec![];
        for content in contents {
            let (head, tail) = content.split_at(content.len() / 2);
            for piece in [head, tail].iter().filter(|piece| !piece.is_empty()) {
                all.extend((piece.len() as u32).to_le_bytes());
                all.extend(piece.as_bytes());
            }
            all.extend([0; 4]);
        }
        all
    }

    fn keep(entries: Vec<Entry>, contents: &[u8]) -> Result<SourceFiles, SourceError> {
        SourceFiles::of_list(&std::env::temp_dir(), entries, contents)
    }

    #[test]
    fn a_list_of_files_is_kept_with_its_contents() {
        let entries = vec![
            listed(Kind::File, "a", ""),
            listed(Kind::Directory, "d", ""),
            listed(Kind::File, "d/b", ""),
            listed(Kind::HardLink, "d/c", "a"),
            listed(Kind::Symlink, "e", "d/b"),
            listed(Kind::File, "f", ""),
        ];
        let files = keep(entries, &framed(&["one", "three", ""])).unwrap();
        let read = |path: &str| files.read(path, 100).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
        for (path, wanted) in [("a", "one"), ("d/b", "three"), ("d/c", "one"), ("e", "three"), ("f", "")] {
            assert_eq!(read(path).as_deref(), Some(wanted), "{path}");
        }
        assert_eq!((read("d"), read("nosuch")), (None, None));
    }

    #[test]
    fn files_are_listed_in_order_with_their_links() {
        let entries = vec![
            listed(Kind::File, "d-e", ""),
            listed(Kind::File, "d/b", ""),
            listed(Kind::HardLink, "a", "d/b"),
            listed(Kind::File, "empty", ""),
        ];
        let files = keep(entries, &framed(&["one", "three", ""])).unwrap();
        let told: Vec<_> =
            files.list().into_iter().map(|it| (text(it.path), it.kind, text(it.link))).collect();
        let wanted = [
            ("a", Kind::File, ""),
            ("d", Kind::Directory, ""),
            ("d/b", Kind::HardLink, "a"),
            ("d-e", Kind::File, ""),
            ("empty", Kind::File, ""),
        ];
        assert_eq!(told, wanted.map(|(path, kind, link)| (path.to_string(), kind, link.to_string())));
        let piece = |offset, bytes_max| files.read_at("a", offset, bytes_max).unwrap();
        assert_eq!((piece(0, 3), piece(3, 9), piece(5, 9)), (b"thr".to_vec(), b"ee".to_vec(), vec![]));
        assert!(files.read_at("d", 0, 9).is_err() && files.read_at("nosuch", 0, 9).is_err());
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_list_that_cannot_be_is_refused() {
        let one = || vec![listed(Kind::File, "a", "")];
        for (entries, contents, words) in [
            (vec![listed(Kind::File, "../a", "")], framed(&["x"]), "leads out"),
            (
                vec![listed(Kind::Symlink, "a", "/etc"), listed(Kind::File, "a/b", "")],
                framed(&["x"]),
                "no directory",
            ),
            (vec![listed(Kind::HardLink, "a", "b")], vec![], "is not there"),
            (one(), vec![], "cannot keep"),
            (one(), vec![9, 0, 0, 0, 1], "cannot keep"),
            (one(), framed(&["xx"])[..6].to_vec(), "cannot keep"),
        ] {
            let error = keep(entries, &contents).expect_err(words);
            assert!(error.to_string().contains(words), "{words}: {error}");
        }
    }
}
