//! `holm cp`: files into containers and out of them, with docker's rules of where what ends up.
//!
//! What comes out of a container was written by strangers: it is unpacked below the one directory that was named, and no
//! link leads out of that.

use super::engine::{path, query};
use crate::cli::{
    failure::{Failure, Result},
    input::Input,
    output,
    session::Session,
};
use api::client::DockerBody;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use hyper::{HeaderMap, Method};
use model::error::Code;
use serde_json::Value;
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use tokio::io::AsyncRead;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// Tells what lies at a path of a container.
const STAT_HEADER: &str = "x-docker-container-path-stat";
/// Kinds in Go's `os.FileMode`.
const DIRECTORY: u64 = 1 << 31;
const LINK: u64 = 1 << 27;

/// What goes where.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "A path of a container is written CONTAINER:PATH; - is a tar on standard input or output.
Examples:
  holm cp web:/etc/hosts .
  holm cp page.html web:/srv/
  holm cp site/. web:/srv          the files in site, without site itself"
)]
pub struct CopyArgs {
    /// What is copied
    #[arg(value_name = "FROM")]
    pub from: String,
    /// Where to
    #[arg(value_name = "TO")]
    pub to: String,
    /// Give files in the container to its user, and keep owners of those that come out
    #[arg(long, short)]
    pub archive: bool,
    /// Copy what a link leads to
    #[arg(long, short = 'L')]
    pub follow_link: bool,
}

/// What lies at a path of a container.
struct Stat {
    is_directory: bool,
    link: Option<String>,
}

/// Copies.
///
/// # Errors
/// Not one of both is a container's; what is missing or of the wrong kind; as the door refuses.
pub async fn run(session: &Session, args: &CopyArgs) -> Result {
    match (of_container(&args.from), of_container(&args.to)) {
        (Some((container, from)), None) => out(session, args, container, from).await,
        (None, Some((container, to))) => into(session, args, container, to).await,
        (Some(_), Some(_)) => Err(Failure::usage("copying between containers is not supported")
            .hint("copy out and in: `holm cp a:/x - | holm cp - b:/y`")),
        (None, None) => Err(Failure::usage("must specify at least one container source")
            .hint("write CONTAINER:PATH for one of both")),
    }
}

/// The container and the path of `web:/etc`; `None` for a path of this machine.
fn of_container(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['.', '/']) || text == "-" {
        return None;
    }
    text.split_once(':').filter(|(container, path)| !container.is_empty() && !path.is_empty())
}

fn archive_path(container: &str, pairs: &[(&str, &str)]) -> String {
    format!("{}{}", path(&["containers", container, "archive"]), query(pairs))
}

/// `None`: nothing lies there.
async fn stat(session: &Session, container: &str, at: &str) -> Result<Option<Stat>> {
    match session.client.docker_head(&archive_path(container, &[("path", at)])).await {
        Ok(headers) => read_stat(&headers).map(Some),
        // The answer to a question without a body has no words: what is wrong is told by the copy itself.
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_stat(headers: &HeaderMap) -> Result<Stat> {
    let wrong = || Failure::new(Code::Internal, "the answer does not say what lies there");
    let text = headers.get(STAT_HEADER).and_then(|value| value.to_str().ok()).ok_or_else(wrong)?;
    let told: Value =
        STANDARD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(wrong)?;
    let mode = told["mode"].as_u64().unwrap_or(0);
    let link = (mode & LINK != 0).then(|| told["linkTarget"].as_str().unwrap_or_default().to_string());
    Ok(Stat { is_directory: mode & DIRECTORY != 0, link })
}

/// The directory and the last name of a path of a container.
fn split(at: &str) -> (&str, &str) {
    match at.trim_end_matches('/').rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((directory, name)) => (directory, name),
        None => ("/", at.trim_end_matches('/')),
    }
}

async fn into(session: &Session, args: &CopyArgs, container: &str, to: &str) -> Result {
    let put = async |directory: &str, archive: Box<dyn AsyncRead + Send + Unpin>| {
        let own = if args.archive { "true" } else { "" };
        let pairs = [("path", directory), ("noOverwriteDirNonDir", "true"), ("copyUIDGID", own)];
        let path = archive_path(container, &pairs);
        session.client.docker(Method::PUT, &path, DockerBody::Archive(archive)).await?;
        Ok(())
    };
    if args.from == "-" {
        return put(to, Box::new(Box::pin(Input::stdin().into_reader()))).await;
    }
    let mut to = to.to_string();
    let mut there = stat(session, container, &to).await?;
    if let Some(link) = there.as_ref().and_then(|stat| stat.link.clone()) {
        to = if link.starts_with('/') { link } else { format!("{}/{link}", split(&to).0) };
        there = stat(session, container, &to).await?;
    }
    let failed = |e: io::Error| Failure::local(format!("cannot read {}", args.from), &e);
    let source = PathBuf::from(&args.from);
    let found = if args.follow_link { fs::metadata(&source) } else { fs::symlink_metadata(&source) };
    let is_directory = found.map_err(failed)?.is_dir();
    let contents = is_directory && (args.from.ends_with("/.") || args.from == ".");
    let source =
        if args.follow_link || contents { fs::canonicalize(&source).map_err(failed)? } else { source };
    let own_name = || {
        let whole =
            fs::canonicalize(&source).ok().filter(|_| source.file_name().is_none()).unwrap_or(source.clone());
        whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let (directory, name) = match there {
        Some(stat) if stat.is_directory => (to.as_str(), if contents { String::new() } else { own_name() }),
        Some(_) if is_directory => {
            return Err(Failure::usage(format!("cannot copy a directory onto the file {container}:{to}")));
        }
        None if !is_directory && to.ends_with('/') => {
            return Err(Failure::new(Code::NotFound, format!("no such directory: {container}:{to}"))
                .hint("docker's rule: a path that ends in / has to be a directory that is there"));
        }
        _ => (split(&to).0, split(&to).1.to_string()),
    };
    let keeps = args.archive;
    let archive = Input::made_by(move |out| write(&source, &name, keeps, out)).into_reader();
    put(directory, Box::new(Box::pin(archive))).await
}

/// Writes a file or a directory as a tar, under another name; without a name, what is in the directory.
fn write(source: &Path, name: &str, keeps_owners: bool, out: &mut dyn io::Write) -> io::Result<()> {
    let mut builder = tar::Builder::new(out);
    builder.follow_symlinks(false);
    let mut waiting = vec![(source.to_path_buf(), PathBuf::from(name))];
    while let Some((path, name)) = waiting.pop() {
        let found = fs::symlink_metadata(&path)?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&found);
        if !keeps_owners {
            // As docker has it: files are the container's root's.
            header.set_uid(0);
            header.set_gid(0);
        }
        let kind = found.file_type();
        if kind.is_dir() {
            if name.as_os_str().is_empty() {
                header.set_size(0);
                builder.append_data(&mut header, "./", io::empty())?;
            } else {
                header.set_size(0);
                builder.append_data(&mut header, &name, io::empty())?;
            }
            let mut entries = fs::read_dir(&path)?.collect::<io::Result<Vec<_>>>()?;
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
            waiting.extend(entries.into_iter().map(|entry| (entry.path(), name.join(entry.file_name()))));
        } else if kind.is_symlink() {
            header.set_size(0);
            builder.append_link(&mut header, &name, fs::read_link(&path)?)?;
        } else if kind.is_file() {
            builder.append_data(&mut header, &name, io::Read::take(fs::File::open(&path)?, found.len()))?;
        }
        // Sockets, pipes and devices are left out.
    }
    builder.finish()
}

async fn out(session: &Session, args: &CopyArgs, container: &str, from: &str) -> Result {
    let mut from = from.to_string();
    if args.follow_link
        && let Some(link) = stat(session, container, &from).await?.and_then(|stat| stat.link)
    {
        from = if link.starts_with('/') { link } else { format!("{}/{link}", split(&from).0) };
    }
    let (headers, bytes) = session.client.docker_bytes(&archive_path(container, &[("path", &from)])).await?;
    if args.to == "-" {
        let mut bytes = std::pin::pin!(bytes);
        while let Some(piece) = bytes.next().await {
            output::write(&piece.map_err(|e| Failure::local("the archive did not come whole", &e))?)?;
        }
        return Ok(());
    }
    let is_directory = read_stat(&headers)?.is_directory;
    let to = PathBuf::from(&args.to);
    let contents = from == "." || from.ends_with("/.");
    let place = Place::of(&to, &args.to, is_directory, contents)?;
    let keeps = args.archive;
    let reader = SyncIoBridge::new(StreamReader::new(Box::pin(bytes)));
    let done = tokio::task::spawn_blocking(move || place.unpack(reader, keeps)).await;
    let done = done.map_err(|e| Failure::new(Code::Internal, format!("the copy was cut off: {e}")))?;
    done.map_err(|e| Failure::local(format!("cannot write {}", to.display()), &e))
}

/// Where what comes out of a container goes.
enum Place {
    /// Into this directory, under its own name.
    Into(PathBuf),
    /// To this path, which is not there or a file; with the contents of a directory alone it becomes that directory.
    As { path: PathBuf, contents: bool },
}

impl Place {
    fn of(to: &Path, typed: &str, is_directory: bool, contents: bool) -> Result<Self> {
        match fs::metadata(to) {
            Ok(there) if there.is_dir() => Ok(Self::Into(to.to_path_buf())),
            Ok(_) if is_directory => {
                Err(Failure::usage(format!("cannot copy a directory onto the file {}", to.display())))
            }
            Err(_) if !is_directory && typed.ends_with('/') => {
                Err(Failure::new(Code::NotFound, format!("no such directory: {typed}"))
                    .hint("docker's rule: a path that ends in / has to be a directory that is there"))
            }
            _ => Ok(Self::As { path: to.to_path_buf(), contents }),
        }
    }

    fn unpack(&self, archive: impl io::Read, keeps_owners: bool) -> io::Result<()> {
        let mut archive = tar::Archive::new(archive);
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(keeps_owners);
        archive.set_overwrite(true);
        match self {
            Self::Into(directory) => unpack_below(&mut archive, directory),
            Self::As { path, contents } => {
                let beside =
                    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let making = beside.join(format!(".holm-cp-{}", std::process::id()));
                fs::create_dir(&making)?;
                let moved =
                    unpack_below(&mut archive, &making).and_then(|()| take_over(&making, path, *contents));
                let removed = fs::remove_dir_all(&making);
                match moved {
                    // What it was unpacked in has become the directory that was asked for.
                    Ok(()) if !making.exists() => Ok(()),
                    Ok(()) => removed,
                    Err(error) => Err(error),
                }
            }
        }
    }
}

/// Unpacks below a directory, and refuses what leads out of it.
fn unpack_below(archive: &mut tar::Archive<impl io::Read>, directory: &Path) -> io::Result<()> {
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.unpack_in(directory)? {
            let name = entry.path()?.display().to_string();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} leads out of it")));
        }
    }
    Ok(())
}

/// Gives what was unpacked its name: the one thing that there is, or all of it where a directory's contents came.
fn take_over(making: &Path, path: &Path, contents: bool) -> io::Result<()> {
    if contents {
        return fs::rename(making, path);
    }
    match fs::read_dir(making)?.next() {
        Some(only) => fs::rename(only?.path(), path),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "nothing came")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_containers_are_told_from_this_machines() {
        for (text, found) in [
            ("web:/etc", Some(("web", "/etc"))),
            ("./web:x", None),
            ("/a:b", None),
            ("file", None),
            ("-", None),
            ("web:rel", Some(("web", "rel"))),
        ] {
            assert_eq!(of_container(text), found, "{text}");
        }
        assert_eq!((split("/a/b/"), split("/a"), split("a")), (("/a", "b"), ("/", "a"), ("/", "a")));
    }

    #[test]
    fn archives_are_packed_and_unpacked_and_lead_nowhere_else() {
        let room = tempfile::tempdir().unwrap();
        let tree = room.path().join("tree");
        fs::create_dir_all(tree.join("deep")).unwrap();
        fs::write(tree.join("deep/file"), "text").unwrap();
        std::os::unix::fs::symlink("deep/file", tree.join("link")).unwrap();
        let mut bytes = vec![];
        write(&tree, "named", false, &mut bytes).unwrap();
        Place::Into(room.path().to_path_buf()).unpack(&bytes[..], false).unwrap();
        assert_eq!(fs::read_to_string(room.path().join("named/link")).unwrap(), "text");
        Place::As { path: room.path().join("other"), contents: false }.unpack(&bytes[..], false).unwrap();
        assert_eq!(fs::read_to_string(room.path().join("other/deep/file")).unwrap(), "text");
        // The contents of a directory that has one thing are a directory all the same.
        let mut bytes = vec![];
        write(&tree.join("deep"), "", false, &mut bytes).unwrap();
        Place::As { path: room.path().join("whole"), contents: true }.unpack(&bytes[..], false).unwrap();
        assert_eq!(fs::read_to_string(room.path().join("whole/file")).unwrap(), "text");

        for name in ["../out", "a/../../out"] {
            let mut builder = tar::Builder::new(vec![]);
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            header.set_mode(0o644);
            // The library's own check is passed by: strangers have none.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, &b"x"[..]).unwrap();
            let hostile = builder.into_inner().unwrap();
            let inner = room.path().join("inner");
            fs::create_dir_all(&inner).unwrap();
            assert!(Place::Into(inner).unpack(&hostile[..], false).is_err(), "{name}");
            assert!(!room.path().join("out").exists(), "{name}");
        }
        let names: Vec<_> = fs::read_dir(room.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".holm-cp")), "{names:?}");
    }
}
