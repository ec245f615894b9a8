//! What patterns of `COPY` and `ADD` mean among a build's files: the digest of it, and an archive of it for its target.

use super::{Index, Node, SourceError, SourceFiles, io_at};
use crate::{
    image::{
        compression::{decompress_any, is_compressed_any},
        pipe::{Body, pipe},
        tar::{Entry, Kind, TarError, TarReader},
        tar_writer::TarWriter,
    },
    instance::sentence,
};
use model::{dockerfile::ignore::fits_path, error::Fault};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    sync::{Arc, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// Most links that are followed to what a path means.
const LINKS_MAX: usize = 40;
/// Most things that one pattern may mean.
const MATCHES_MAX: usize = 10_000;
const COPY_BYTES: usize = 128 << 10;
/// Where tar archives say what they are (POSIX.1-2017 "ustar Interchange Format").
const USTAR_AT: usize = 257;

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

impl Owner {
    fn of(self, node: &Node) -> (u64, u64) {
        match self {
            Self::Root => (0, 0),
            Self::Kept => (node.uid, node.gid),
            Self::Ids(uid, gid) => (uid.into(), gid.into()),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pick {
    /// A path, or a pattern.
    pub pattern: String,
    /// Archives are unpacked (`ADD`).
    pub unpacks: bool,
    /// Whom it belongs to.
    pub owner: Owner,
    /// Permissions instead of the files' own.
    pub mode: Option<u32>,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Picked {
    files: SourceFiles,
    asked: Pick,
    /// Names as they were asked for, and what they mean.
    found: Vec<(Vec<u8>, Vec<u8>)>,
    /// SHA-256 of all that is copied: names, kinds, modes, owners, contents.
    pub digest: String,
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

impl Target {
    fn time(&self, time_s: i64) -> i64 {
        self.newest_s.map_or(time_s, |newest| newest.min(time_s))
    }
}

impl SourceFiles {
    /// Resolves a path through the links of these files alone.
    pub(super) fn resolve(&self, path: &str) -> Result<Vec<u8>, SourceError> {
        let mut rest: Vec<Vec<u8>> = path.split('/').rev().map(|part| part.as_bytes().to_vec()).collect();
        let (mut at, mut links): (Vec<Vec<u8>>, usize) = (vec![], 0);
        while let Some(part) = rest.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    // Below the root there is nothing else: as in a container.
                    at.pop();
                    continue;
                }
                _ => at.push(part),
            }
            let Some(node) = self.index.get(&at.join(&b'/')) else {
                return Err(SourceError::Missing(path.into()));
            };
            if node.kind == Kind::Symlink {
                links += 1;
                if links > LINKS_MAX {
                    return Err(SourceError::Loop(path.into()));
                }
                at.pop();
                if node.link.starts_with(b"/") {
                    at.clear();
                }
                rest.extend(node.link.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
            } else if node.kind != Kind::Directory
                && rest.iter().any(|part| !matches!(part.as_slice(), b"" | b"."))
            {
                return Err(SourceError::Missing(path.into()));
            }
        }
        Ok(at.join(&b'/'))
    }

    /// Finds what a pattern means, and reads all of it once. Blocking.
    ///
    /// # Errors
    /// It means nothing, or leads out.
    pub fn pick(&self, asked: &Pick) -> Result<Picked, Fault> {
        let picked = self.find(asked).and_then(|found| {
            let digest = self.digest(asked, &found)?;
            Ok(Picked { files: self.clone(), asked: asked.clone(), found, digest })
        });
        picked.map_err(|error| error.fault())
    }

    fn find(&self, asked: &Pick) -> Result<Vec<(Vec<u8>, Vec<u8>)>, SourceError> {
        let path = cleaned(&asked.pattern)?;
        if !path.contains(['*', '?', '[', '\\']) {
            return Ok(vec![(path.as_bytes().to_vec(), self.resolve(&path)?)]);
        }
        let mut found = vec![];
        for key in self.index.keys() {
            let name = String::from_utf8_lossy(key);
            if fits_path(&path, &name) {
                if found.len() == MATCHES_MAX {
                    return Err(SourceError::Limit {
                        what: "files that the pattern means",
                        limit: MATCHES_MAX as u64,
                    });
                }
                found.push((key.clone(), self.resolve(&name)?));
            }
        }
        if found.is_empty() { Err(SourceError::Missing(asked.pattern.clone())) } else { Ok(found) }
    }

    fn digest(&self, asked: &Pick, found: &[(Vec<u8>, Vec<u8>)]) -> Result<String, SourceError> {
        let mut sum = Sha256::new();
        let mut put = |bytes: &[u8]| {
            sum.update((bytes.len() as u64).to_le_bytes());
            sum.update(bytes);
        };
        for (name, key) in found {
            put(base(name));
            for (path, node) in self.below(key) {
                let owner = asked.owner.of(node);
                put(&path[key.len().min(path.len())..]);
                put(format!("{:?} {:o} {owner:?}", node.kind, asked.mode.unwrap_or(node.mode)).as_bytes());
                put(&node.link);
                for (name, value) in &node.xattrs {
                    put(name);
                    put(value);
                }
                if node.kind == Kind::File {
                    put(self.sum(node.place)?.as_bytes());
                }
            }
        }
        Ok(hex(&sum.finalize()))
    }

    /// A thing and all that lies below it.
    fn below<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a Node)> {
        let index: &Index = &self.index;
        let itself = index.get_key_value(key);
        let prefix = if key.is_empty() { vec![] } else { [key, b"/"].concat() };
        let rest = index.range(prefix.clone()..);
        itself.into_iter().chain(rest.take_while(move |(path, _)| path.starts_with(&prefix)))
    }

    fn sum(&self, place: (u64, u64)) -> Result<String, SourceError> {
        let known = || self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sum) = known().get(&place) {
            return Ok(sum.clone());
        }
        let mut sum = Sha256::new();
        io::copy(&mut self.content(place), &mut sum).map_err(io_at("read the archive"))?;
        let sum = hex(&sum.finalize());
        known().insert(place, sum.clone());
        Ok(sum)
    }

    fn content(&self, (at, length): (u64, u64)) -> Content {
        Content { file: Arc::clone(&self.file), at, left: length }
    }
}

/// A directory that nobody sent.
fn made() -> Node {
    Node { mode: 0o755, ..Node::directory() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// A source's path without `.` and `..`, which may not lead out.
fn cleaned(path: &str) -> Result<String, SourceError> {
    let mut parts: Vec<&str> = vec![];
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.is_empty() => return Err(SourceError::Outside(path.to_string())),
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// A part of the file without a name.
struct Content {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = self.left.min(buffer.len() as u64) as usize;
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.at, self.left) = (self.at + count as u64, self.left - count as u64);
        Ok(count)
    }
}

impl Picked {
    /// How many things the pattern means.
    pub fn count(&self) -> usize {
        self.found.len()
    }

    /// SHA-256 of the one file that was found, in hex. Blocking.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn sum(&self) -> Result<String, Fault> {
        let file = self.found.first().and_then(|(_, key)| self.files.index.get(key));
        let place = file.map_or((0, 0), |node| node.place);
        self.files.sum(place).map_err(|error| error.fault())
    }

    /// An archive of it, to be unpacked at the root of an image. It is made as it is read.
    pub fn send(&self, target: Target) -> Body {
        let (body, maker) = pipe(CancellationToken::new());
        let picked = self.clone();
        tokio::task::spawn_blocking(move || {
            maker.make(|output| picked.write(&target, output));
        });
        body
    }

    fn write(&self, target: &Target, output: impl Write) -> Result<(), SourceError> {
        let mut tar = TarWriter::new(output);
        let place = target.path.trim_matches('/').as_bytes().to_vec();
        for path in &target.made {
            self.put_as(target, path.trim_matches('/').as_bytes().to_vec(), &made(), None, &mut tar)?;
        }
        for (name, key) in &self.found {
            let node = self.files.index.get(key);
            match node {
                Some(node) if node.kind == Kind::File => {
                    if self.asked.unpacks && self.is_archive(node)? {
                        self.unpack(target, node, &place, &mut tar)?;
                        continue;
                    }
                    let path = if target.is_directory { under(&place, base(name)) } else { place.clone() };
                    self.put(target, path, node, &mut tar)?;
                }
                Some(node) if node.kind != Kind::Directory => {
                    let path = if target.is_directory { under(&place, base(name)) } else { place.clone() };
                    self.put(target, path, node, &mut tar)?;
                }
                // A directory, or the root, which has no entry: what is in it is copied.
                _ => {
                    if target.is_new && !place.is_empty() {
                        let plain = Node { mtime_s: node.map_or(0, |node| node.mtime_s), ..made() };
                        self.put(target, place.clone(), &plain, &mut tar)?;
                    }
                    self.put_below(target, key, &place, &mut tar)?;
                }
            }
        }
        if target.is_last {
            tar.finish().map_err(io_at("write the archive"))?;
        } else {
            tar.flush().map_err(io_at("write the archive"))?;
        }
        Ok(())
    }

    /// Puts what lies in a directory. Names of one file inside of it stay names of one file, as BuildKit keeps them.
    fn put_below<W: Write>(
        &self,
        target: &Target,
        key: &[u8],
        place: &[u8],
        tar: &mut TarWriter<W>,
    ) -> Result<(), SourceError> {
        let mut firsts: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        for (path, node) in self.files.below(key).filter(|(path, _)| *path != key) {
            let rest = if key.is_empty() { &path[..] } else { &path[key.len() + 1..] };
            let path = under(place, rest);
            // Files share no bytes but those that are one; of empty ones nobody can tell.
            if node.kind == Kind::File && node.place.1 > 0 {
                if let Some(first) = firsts.get(&node.place) {
                    let whole = self.entry(target, path, node, self.asked.mode);
                    let entry = Entry { kind: Kind::HardLink, link: first.clone(), xattrs: vec![], ..whole };
                    tar.add(&entry).map_err(io_at("write the archive"))?;
                    continue;
                }
                firsts.insert(node.place, path.clone());
            }
            self.put(target, path, node, tar)?;
        }
        Ok(())
    }

    fn put<W: Write>(
        &self,
        target: &Target,
        path: Vec<u8>,
        node: &Node,
        tar: &mut TarWriter<W>,
    ) -> Result<(), SourceError> {
        self.put_as(target, path, node, self.asked.mode, tar)
    }

    fn put_as<W: Write>(
        &self,
        target: &Target,
        path: Vec<u8>,
        node: &Node,
        mode: Option<u32>,
        tar: &mut TarWriter<W>,
    ) -> Result<(), SourceError> {
        let device = "is a device: an image has none";
        if matches!(node.kind, Kind::CharDevice | Kind::BlockDevice) {
            return Err(SourceError::Entry {
                entry: String::from_utf8_lossy(&path).into_owned(),
                why: device,
            });
        }
        let mut entry = self.entry(target, path, node, mode);
        let failed = io_at("write the archive");
        if node.kind != Kind::File {
            return tar.add(&entry).map_err(failed);
        }
        entry.size_bytes = node.place.1;
        tar.add_file(&entry, &mut self.files.content(node.place)).map_err(failed)
    }

    /// A thing at its place in the image, with whose it is there; its content is not counted yet.
    fn entry(&self, target: &Target, path: Vec<u8>, node: &Node, mode: Option<u32>) -> Entry {
        let is_link = node.kind == Kind::Symlink;
        let (uid, gid) = self.asked.owner.of(node);
        Entry {
            path,
            link: node.link.clone(),
            kind: node.kind,
            mode: if is_link { 0o777 } else { mode.unwrap_or(node.mode) },
            uid,
            gid,
            size_bytes: 0,
            mtime: (target.time(node.mtime_s), 0),
            xattrs: node.xattrs.clone(),
        }
    }

    /// Whether a file is an archive, by its first bytes: as it is, or behind gzip, zstd, bzip2 or xz.
    fn is_archive(&self, node: &Node) -> Result<bool, SourceError> {
        let mut head = vec![];
        let content = || self.files.content(node.place);
        content().take(6).read_to_end(&mut head).map_err(io_at("read the archive"))?;
        let mut block = vec![];
        let begins = if is_compressed_any(&head) {
            // One that is damaged is no archive.
            decompress_any(content())?.take(512).read_to_end(&mut block).is_ok()
        } else {
            content().take(512).read_to_end(&mut block).map_err(io_at("read the archive"))?;
            true
        };
        Ok(begins && block.get(USTAR_AT..USTAR_AT + 5) == Some(b"ustar"))
    }

    fn unpack<W: Write>(
        &self,
        target: &Target,
        node: &Node,
        place: &[u8],
        tar: &mut TarWriter<W>,
    ) -> Result<(), SourceError> {
        let mut reader = TarReader::new(decompress_any(self.files.content(node.place))?);
        while let Some(mut entry) = reader.next_entry()? {
            let Some(path) = inner(&entry.path) else {
                return Err(super::wrong(&entry, "leads out of the directory"));
            };
            if path.is_empty() {
                continue;
            }
            if entry.kind == Kind::HardLink {
                let Some(link) = inner(&entry.link) else {
                    return Err(super::wrong(&entry, "leads out of the directory"));
                };
                entry.link = under(place, &link);
            }
            entry.path = under(place, &path);
            entry.mtime = (target.time(entry.mtime.0), 0);
            if let Owner::Ids(uid, gid) = self.asked.owner {
                (entry.uid, entry.gid) = (uid.into(), gid.into());
            }
            let failed = io_at("write the archive");
            if entry.kind == Kind::File {
                copy_entry(&entry, &mut reader, tar).map_err(failed)?;
            } else {
                entry.size_bytes = 0;
                tar.add(&entry).map_err(failed)?;
            }
        }
        // What comes behind the archive's own end tells whether it was whole.
        io::copy(&mut reader.into_inner(), &mut io::sink()).map_err(io_at("read the archive's end"))?;
        Ok(())
    }
}

/// As [`TarWriter::add_file`], of content that must be whole.
fn copy_entry<R: Read, W: Write>(
    entry: &Entry,
    reader: &mut TarReader<R>,
    tar: &mut TarWriter<W>,
) -> io::Result<()> {
    let mut whole = Whole { input: reader, left: entry.size_bytes };
    tar.add_file(entry, &mut whole)
}

/// Content that ends early is an error, and not filled up.
struct Whole<'a, R> {
    input: &'a mut TarReader<R>,
    left: u64,
}

impl<R: Read> Read for Whole<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(COPY_BYTES);
        let count = self.input.read(&mut buffer[..wanted])?;
        if count == 0 && self.left > 0 {
            return Err(io::Error::other(sentence(&TarError::Truncated)));
        }
        self.left -= (count as u64).min(self.left);
        Ok(count)
    }
}

/// The parts of a name; `None` where it leads out.
fn inner(name: &[u8]) -> Option<Vec<u8>> {
    let parts: Vec<&[u8]> =
        name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) { None } else { Some(parts.join(&b'/')) }
}

fn under(place: &[u8], name: &[u8]) -> Vec<u8> {
    match (place, name) {
        (b"", name) => name.to_vec(),
        (place, b"") => place.to_vec(),
        (place, name) => [place, b"/", name].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind, link: &str) -> Entry {
        Entry {
            path: path.into(),
            link: link.into(),
            kind,
            mode: 0o640,
            uid: 7,
            gid: 8,
            size_bytes: 0,
            mtime: (1_700_000_000, 0),
            xattrs: vec![],
        }
    }

    /// What comes of a pattern at `/to/`: names, kinds, and what links lead to.
    fn sent(files: &SourceFiles, pattern: &str) -> Vec<(String, Kind, String)> {
        let asked = Pick { pattern: pattern.into(), owner: Owner::Kept, ..Pick::default() };
        let picked = files.pick(&asked).expect("found");
        let target = Target { path: "/to".into(), is_directory: true, is_last: true, ..Target::default() };
        let mut bytes = vec![];
        picked.write(&target, &mut bytes).expect("written");
        let mut reader = TarReader::new(&bytes[..]);
        let mut told = vec![];
        while let Some(entry) = reader.next_entry().expect("an archive") {
            assert_eq!((entry.mode, entry.uid, entry.gid), (0o640, 7, 8));
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
            told.push((text(entry.path), entry.kind, text(entry.link)));
        }
        told
    }

    #[test]
    fn names_of_one_file_stay_so_within_a_directory() {
        let mut tar = TarWriter::new(vec![]);
        for (path, text) in [("d/b", "same"), ("d/other", "same"), ("out", "x")] {
            let file = Entry { size_bytes: text.len() as u64, ..entry(path, Kind::File, "") };
            tar.add_file(&file, &mut text.as_bytes()).expect("written");
        }
        tar.add(&entry("d/a", Kind::HardLink, "d/b")).expect("written");
        tar.add(&entry("d/c", Kind::HardLink, "d/b")).expect("written");
        tar.add(&entry("d/far", Kind::HardLink, "out")).expect("written");
        let archive = std::io::Cursor::new(tar.finish().expect("written"));
        let files = SourceFiles::read_archive(&std::env::temp_dir(), archive, b"").expect("kept");
        let file = |path: &str| (path.to_string(), Kind::File, String::new());
        let link = |path: &str, to: &str| (path.to_string(), Kind::HardLink, to.to_string());
        // The first in order is the file; what lies outside is no part of what is copied.
        let inside =
            vec![file("to/a"), link("to/b", "to/a"), link("to/c", "to/a"), file("to/far"), file("to/other")];
        assert_eq!(sent(&files, "d"), inside);
        // Things that are named one by one come one by one.
        assert_eq!(sent(&files, "d/[ab]"), vec![file("to/a"), file("to/b")]);
    }
}
