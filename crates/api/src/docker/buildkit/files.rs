//! Directories of a client, by fsutil's protocol: first what there is, then what it holds.
//!
//! ```text
//!   client ── STAT … STAT, an empty STAT ──▶ holm         what there is, in order
//!          ◀── REQ 3, REQ 4 … ──────────────              contents, by the number of the STAT
//!          ── DATA 3 … DATA 4 … ───────────▶              an empty one ends each
//!          ◀── FIN ── ── FIN ──────────────▶
//! ```
//!
//! Nothing that a client says is believed: names come in order and lead nowhere else, all has limits, and what comes goes
//! into a file without a name (`streams::Streams::source_listed`), never into a directory of this host.

use super::{
    grpc::{self, Code, Status, framed},
    session::{ANSWER_TIMEOUT, Session, Stream},
    wire::{Packet, Stat, packet},
};
use crate::{
    docker::door::Door,
    error::{Failure, Result},
    streams::{SourceEntry, SourceFiles, SourceKind},
};
use bytes::Bytes;
use model::error::Code as Kind;
use std::{collections::HashMap, sync::Arc};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// What is called of a session.
const METHOD: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// Most files of a directory.
const FILES_MAX: usize = 250_000;
/// Most bytes of all names together.
const NAMES_BYTES_MAX: usize = 32 << 20;
/// Longest name, and longest target of a link (PATH_MAX).
const NAME_BYTES_MAX: usize = 4096;
/// Most extended attributes of a file, and bytes of one.
const XATTRS_MAX: usize = 64;
const XATTR_BYTES_MAX: usize = 64 << 10;
/// Files up to so many bytes are asked for together.
const SMALL_BYTES_MAX: i64 = 128 << 10;
/// Most files that are asked for together.
const TOGETHER_MAX: usize = 48;
/// Most bytes of one of them: it may have grown meanwhile.
const GROWN_BYTES_MAX: usize = 4 << 20;
/// Bytes between the client and the file that they go to.
const PIPE_BYTES: usize = 1 << 20;
/// Most patterns that are sent to a client; with more, all is taken and left out here.
const PATTERNS_MAX: usize = 500;

/// What of a directory is wanted.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Its name: `context` or `dockerfile`, or another that the client gave.
    pub directory: String,
    /// Only these, with what they lead to; all where there are none.
    pub paths: Vec<String>,
    /// All but these (lines of a `.dockerignore`).
    pub excludes: Vec<String>,
}

/// Takes a directory of a client.
///
/// # Errors
/// The client does not give it, or gives what cannot be: limits, and names that lead out.
pub async fn take(door: &Door, session: &Session, wanted: &Wanted) -> Result<Arc<dyn SourceFiles>> {
    let mut stream = begin(session, wanted).await.map_err(|status| status.failure())?;
    let listed = list(&mut stream).await.map_err(|status| status.failure())?;
    let (entries, contents) = (listed.entries, listed.contents);
    let (mut to_file, from_client) = tokio::io::duplex(PIPE_BYTES);
    let filling = async move {
        let filled = fill(&mut stream, &contents, &mut to_file).await;
        // What is kept ends with this.
        drop(to_file);
        filled
    };
    let keeping = door.app().streams().source_listed(entries, Box::new(from_client));
    let (mut filling, mut keeping) = (std::pin::pin!(filling), std::pin::pin!(keeping));
    tokio::select! {
        kept = &mut keeping => {
            let files = kept?;
            // All is here. That the client is told so is a courtesy.
            let _ = filling.await;
            Ok(files)
        }
        filled = &mut filling => match (filled, keeping.await) {
            // The reason is with who keeps it, unless that only saw that the client broke off.
            (Err(Filling::Client(status)), Err(error)) if error.code == Kind::Internal => {
                Err(status.failure())
            }
            (_, kept) => Ok(kept?),
        },
    }
}

async fn begin(session: &Session, wanted: &Wanted) -> grpc::Result<Stream> {
    let name = [wanted.directory.clone()];
    let mut headers: Vec<(&str, &[String])> = vec![("dir-name", &name[..])];
    if !wanted.paths.is_empty() {
        headers.push(("followpaths", &wanted.paths[..]));
    }
    if (1..=PATTERNS_MAX).contains(&wanted.excludes.len()) {
        headers.push(("exclude-patterns", &wanted.excludes[..]));
    }
    session.stream(METHOD, &headers).await
}

/// What there is.
#[derive(Default)]
struct Listed {
    entries: Vec<SourceEntry>,
    /// Number and expected bytes of each file with a content.
    contents: Vec<(u32, i64)>,
}

async fn list(stream: &mut Stream) -> grpc::Result<Listed> {
    let (mut listed, mut names_bytes, mut number) = (Listed::default(), 0, 0u32);
    loop {
        let packet = next(stream).await?;
        let Some(stat) = packet.stat.filter(|_| packet.kind == packet::STAT) else {
            if packet.kind == packet::STAT {
                return Ok(listed);
            }
            return Err(Status::new(Code::Invalid, "the client sends contents that nobody asked for"));
        };
        names_bytes += stat.path.len() + stat.link.len();
        let limit = |what: &str, limit: usize| {
            let message = format!(
                "there are more than {limit} {what}: leave out by .dockerignore what the image does not need"
            );
            Err(Status::new(Code::Exhausted, message))
        };
        if listed.entries.len() == FILES_MAX {
            return limit("files", FILES_MAX);
        }
        if names_bytes > NAMES_BYTES_MAX {
            return limit("bytes of names", NAMES_BYTES_MAX);
        }
        let before = listed.entries.last().map(|entry| entry.path.as_str());
        check(&stat, before)?;
        let (entry, size) = entry(stat)?;
        if entry.kind == SourceKind::File {
            listed.contents.push((number, size));
        }
        listed.entries.push(entry);
        number += 1;
    }
}

/// The next packet.
async fn next(stream: &mut Stream) -> grpc::Result<Packet> {
    let packet: Option<Packet> = stream.messages.next(ANSWER_TIMEOUT).await?;
    let packet =
        packet.ok_or_else(|| Status::new(Code::Unavailable, "the client ended its files too early"))?;
    if packet.kind == packet::ERROR {
        let text = String::from_utf8_lossy(&packet.data).chars().take(400).collect::<String>();
        return Err(Status::new(Code::Unknown, format!("the client cannot read its files: {text}")));
    }
    Ok(packet)
}

/// Refuses names that lead elsewhere, or that are not in order.
fn check(stat: &Stat, before: Option<&str>) -> grpc::Result<()> {
    let wrong = |why: &str| {
        let path: String = stat.path.chars().take(400).collect();
        Err(Status::new(Code::Invalid, format!("the client's file {path:?} {why}")))
    };
    if stat.path.len() > NAME_BYTES_MAX || stat.link.len() > NAME_BYTES_MAX {
        return wrong("has a name or a target that is too long");
    }
    if stat.path.split('/').any(|part| matches!(part, "" | "." | "..")) || stat.path.contains('\0') {
        return wrong("leads out of the directory");
    }
    // Part by part: what lies in a directory comes behind it and before its next neighbour.
    if before.is_some_and(|before| before.split('/').ge(stat.path.split('/'))) {
        return wrong("is out of order");
    }
    if stat.xattrs.len() > XATTRS_MAX || stat.xattrs.values().any(|value| value.len() > XATTR_BYTES_MAX) {
        return wrong("has too many extended attributes, or one that is too long");
    }
    Ok(())
}

/// Bits of Go's `io/fs.FileMode`.
pub(super) mod go {
    pub const DIRECTORY: u32 = 1 << 31;
    pub const SYMLINK: u32 = 1 << 27;
    pub const DEVICE: u32 = 1 << 26;
    pub const FIFO: u32 = 1 << 25;
    pub const SET_UID: u32 = 1 << 23;
    pub const SET_GID: u32 = 1 << 22;
    pub const CHAR_DEVICE: u32 = 1 << 21;
    pub const STICKY: u32 = 1 << 20;
    const SOCKET: u32 = 1 << 24;
    const IRREGULAR: u32 = 1 << 19;
    /// The bits that POSIX has among the permissions, and what they are here.
    pub const SPECIAL: [(u32, u32); 3] = [(SET_UID, 0o4000), (SET_GID, 0o2000), (STICKY, 0o1000)];

    /// Permissions of POSIX in these bits.
    pub fn permissions(mode: u32) -> u32 {
        let special = SPECIAL.iter().filter(|(_, posix)| mode & posix != 0);
        special.fold(mode & 0o777, |bits, (bit, _)| bits | bit)
    }

    /// Those that make a file something else than a regular one.
    pub const KINDS: u32 = DIRECTORY | SYMLINK | DEVICE | FIFO | SOCKET | CHAR_DEVICE | IRREGULAR;
}

fn entry(stat: Stat) -> grpc::Result<(SourceEntry, i64)> {
    let kind = match stat.mode & go::KINDS {
        0 if stat.link.is_empty() => SourceKind::File,
        0 => SourceKind::HardLink,
        go::DIRECTORY => SourceKind::Directory,
        go::SYMLINK => SourceKind::Symlink,
        go::FIFO => SourceKind::Fifo,
        kind if kind & go::CHAR_DEVICE != 0 => SourceKind::CharDevice,
        go::DEVICE => SourceKind::BlockDevice,
        _ => {
            let message = format!("the client's file {:.400?} is of a kind that no image has", stat.path);
            return Err(Status::new(Code::Invalid, message));
        }
    };
    let special: u32 = go::SPECIAL.iter().filter(|(bit, _)| stat.mode & bit != 0).map(|(_, mode)| mode).sum();
    let entry = SourceEntry {
        path: stat.path,
        kind,
        mode: stat.mode & 0o777 | special,
        uid: stat.uid,
        gid: stat.gid,
        // Known when it has come.
        size_bytes: 0,
        mtime_s: stat.changed_ns.div_euclid(1_000_000_000),
        link: stat.link,
        // The others are the client's own host's.
        xattrs: stat.xattrs.into_iter().filter(|(name, _)| name == "security.capability").collect(),
    };
    Ok((entry, stat.size))
}

/// Why contents did not come.
enum Filling {
    /// The client.
    Client(Status),
    /// Who keeps them takes no more.
    Kept,
}

impl From<Status> for Filling {
    fn from(status: Status) -> Self {
        Self::Client(status)
    }
}

/// Asks for all contents, and hands them on in their order: for each its pieces, each behind its length, and a length of 0.
async fn fill(
    stream: &mut Stream,
    contents: &[(u32, i64)],
    output: &mut (impl AsyncWrite + Unpin),
) -> std::result::Result<(), Filling> {
    let mut rest = contents;
    while let Some((_, size)) = rest.first() {
        let count = rest.iter().take(TOGETHER_MAX).take_while(|(_, size)| *size <= SMALL_BYTES_MAX).count();
        let (now, later) = rest.split_at(count.max(1));
        for (number, _) in now {
            ask(stream, packet::REQUEST, *number).await?;
        }
        if *size <= SMALL_BYTES_MAX {
            small(stream, now, output).await?;
        } else {
            large(stream, now[0].0, output).await?;
        }
        rest = later;
    }
    output.flush().await.map_err(|_| Filling::Kept)?;
    ask(stream, packet::FINISH, 0).await?;
    // The client's own end is waited for, so that it does not take this for a break.
    while let Some(packet) = stream.messages.next::<Packet>(ANSWER_TIMEOUT).await? {
        if packet.kind == packet::FINISH {
            break;
        }
    }
    Ok(())
}

async fn ask(stream: &Stream, kind: i32, id: u32) -> grpc::Result<()> {
    let packet = framed(&Packet { kind, id, ..Packet::default() });
    stream.send.send(packet).await.map_err(|_| Status::new(Code::Unavailable, "the client is gone"))
}

/// Files that come together, in any order.
async fn small(
    stream: &mut Stream,
    wanted: &[(u32, i64)],
    output: &mut (impl AsyncWrite + Unpin),
) -> std::result::Result<(), Filling> {
    let mut open: HashMap<u32, Vec<Bytes>> = wanted.iter().map(|(number, _)| (*number, vec![])).collect();
    let mut whole: HashMap<u32, Vec<Bytes>> = HashMap::new();
    while !open.is_empty() {
        let (number, data) = data(stream).await?;
        let pieces = open.get_mut(&number).ok_or_else(unasked)?;
        if data.is_empty() {
            whole.extend(open.remove_entry(&number));
            continue;
        }
        pieces.push(data);
        if pieces.iter().map(Bytes::len).sum::<usize>() > GROWN_BYTES_MAX {
            return Err(Status::new(Code::Invalid, "a file of the client grew while it was sent").into());
        }
    }
    for (number, _) in wanted {
        for piece in whole.remove(number).unwrap_or_default() {
            write(output, &piece).await?;
        }
        write(output, &[]).await?;
    }
    Ok(())
}

/// A file that comes alone.
async fn large(
    stream: &mut Stream,
    wanted: u32,
    output: &mut (impl AsyncWrite + Unpin),
) -> std::result::Result<(), Filling> {
    loop {
        let (number, data) = data(stream).await?;
        if number != wanted {
            return Err(unasked().into());
        }
        write(output, &data).await?;
        if data.is_empty() {
            return Ok(());
        }
    }
}

async fn data(stream: &mut Stream) -> grpc::Result<(u32, Bytes)> {
    let packet = next(stream).await?;
    if packet.kind == packet::DATA { Ok((packet.id, packet.data)) } else { Err(unasked()) }
}

fn unasked() -> Status {
    Status::new(Code::Invalid, "the client sends what nobody asked for")
}

async fn write(output: &mut (impl AsyncWrite + Unpin), piece: &[u8]) -> std::result::Result<(), Filling> {
    // A message, and so a piece, is far smaller than this.
    let length = u32::try_from(piece.len()).unwrap_or(u32::MAX).to_le_bytes();
    output.write_all(&length).await.map_err(|_| Filling::Kept)?;
    output.write_all(piece).await.map_err(|_| Filling::Kept)
}

impl Session {
    /// Whether it has files to give.
    ///
    /// # Errors
    /// `invalid` if not.
    pub fn check_files(&self) -> Result<()> {
        if self.serves(METHOD) {
            return Ok(());
        }
        Err(Failure::new(Kind::Invalid, "the client's session gives no files"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(path: &str, mode: u32, link: &str) -> Stat {
        Stat { path: path.into(), mode, link: link.into(), ..Stat::default() }
    }

    #[test]
    fn names_come_in_order_and_lead_nowhere() {
        for path in ["a", "a/b", "a-b", "a b/..c", "...", "ä"] {
            assert_eq!(check(&stat(path, 0, ""), None), Ok(()), "{path}");
        }
        for path in ["", "/", "/a", "a/", "..", "../a", "a/../b", "./a", "a//b", "a/.", "a\0b"] {
            let error = check(&stat(path, 0, ""), None).unwrap_err();
            assert!(error.message.contains("leads out"), "{path}: {error:?}");
        }
        // As a walk gives them: `a/z` belongs to `a`, which comes before `a-b`.
        for (before, after) in [("a", "a/b"), ("a/z", "a-b"), ("a", "b"), ("a/b/c", "a/c")] {
            assert_eq!(check(&stat(after, 0, ""), Some(before)), Ok(()), "{before} {after}");
            let error = check(&stat(before, 0, ""), Some(after)).unwrap_err();
            assert!(error.message.contains("out of order"), "{after} {before}");
        }
        assert!(check(&stat("a", 0, ""), Some("a")).is_err(), "nothing comes twice");
        assert!(check(&stat(&"x".repeat(NAME_BYTES_MAX), 0, ""), None).is_ok());
        assert!(check(&stat(&"x".repeat(NAME_BYTES_MAX + 1), 0, ""), None).is_err());
    }

    #[test]
    fn modes_are_read_as_go_writes_them() {
        for (mode, link, kind, wanted) in [
            (0o644, "", SourceKind::File, 0o644),
            (go::SET_UID | go::STICKY | 0o755, "", SourceKind::File, 0o5755),
            (0o600, "other", SourceKind::HardLink, 0o600),
            (go::DIRECTORY | 0o700, "", SourceKind::Directory, 0o700),
            (go::SYMLINK | 0o777, "x", SourceKind::Symlink, 0o777),
            (go::FIFO | 0o600, "", SourceKind::Fifo, 0o600),
            (go::DEVICE | 0o600, "", SourceKind::BlockDevice, 0o600),
            (go::DEVICE | go::CHAR_DEVICE | 0o600, "", SourceKind::CharDevice, 0o600),
        ] {
            let (entry, _) = entry(stat("x", mode, link)).unwrap();
            assert_eq!((entry.kind, entry.mode), (kind, wanted), "{mode:o}");
        }
        assert!(entry(stat("x", 1 << 24, "")).is_err(), "a socket is none");
    }
}
