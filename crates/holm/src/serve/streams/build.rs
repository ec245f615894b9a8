//! Files that images are built from: from the door's words to the node's.

use super::{NodeStreams, local, refused};
use api::streams::{Owner, Pick, Picked, Reader, SocketAsked, SourceEntry, SourceFiles, SourceKind, Target};
use async_trait::async_trait;
use control::Error;
use model::{
    dockerfile::ignore::Ignore,
    error::Code,
    id::VolumeId,
    volume::{Form, VolumeStatus},
};
use node::{
    image::{
        source,
        tar::{Entry, Kind},
    },
    volume::socket,
};
use std::{path::PathBuf, sync::Arc};
use tokio::net::UnixListener;

struct Files(source::SourceFiles);

struct Found(source::Picked);

/// Work that reads files, beside those that must not wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::new(Code::Internal, "holm made a mistake while it read files"))
}

#[async_trait]
impl SourceFiles for Files {
    async fn read(&self, path: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
        let (files, path) = (self.0.clone(), path.to_string());
        blocking(move || files.read(&path, bytes_max)).await?.map_err(refused)
    }

    async fn without(&self, ignore: Ignore) -> Result<Arc<dyn SourceFiles>, Error> {
        let files = self.0.clone();
        Ok(Arc::new(Files(blocking(move || files.without(&ignore)).await?)))
    }

    async fn list(&self) -> Result<Vec<SourceEntry>, Error> {
        let files = self.0.clone();
        blocking(move || files.list()).await?.into_iter().map(listed).collect()
    }

    async fn read_at(&self, path: &str, offset: u64, bytes_max: usize) -> Result<Vec<u8>, Error> {
        let (files, path) = (self.0.clone(), path.to_string());
        blocking(move || files.read_at(&path, offset, bytes_max)).await?.map_err(refused)
    }

    async fn pick(&self, asked: Pick) -> Result<Arc<dyn Picked>, Error> {
        let files = self.0.clone();
        let Pick { pattern, unpacks, owner, mode } = asked;
        let owner = match owner {
            Owner::Root => source::Owner::Root,
            Owner::Kept => source::Owner::Kept,
            Owner::Ids(uid, gid) => source::Owner::Ids(uid, gid),
        };
        let asked = source::Pick { pattern, unpacks, owner, mode };
        Ok(Arc::new(Found(blocking(move || files.pick(&asked)).await?.map_err(refused)?)))
    }
}

#[async_trait]
impl Picked for Found {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn digest(&self) -> String {
        self.0.digest.clone()
    }

    async fn sum(&self) -> Result<String, Error> {
        let picked = self.0.clone();
        blocking(move || picked.sum()).await?.map_err(refused)
    }

    fn send(&self, target: Target) -> Reader {
        let Target { path, is_directory, is_new, made, is_last, newest_s } = target;
        self.0.send(source::Target { path, is_directory, is_new, made, is_last, newest_s })
    }
}

impl NodeStreams {
    pub(super) async fn keep_archive(
        &self,
        archive: Reader,
        at: &str,
    ) -> Result<Arc<dyn SourceFiles>, Error> {
        Ok(Arc::new(Files(self.images.source_archive(archive, at).await.map_err(refused)?)))
    }

    pub(super) async fn keep_listed(
        &self,
        entries: Vec<SourceEntry>,
        contents: Reader,
    ) -> Result<Arc<dyn SourceFiles>, Error> {
        let entries = entries.into_iter().map(entry).collect();
        Ok(Arc::new(Files(self.images.source_listed(entries, contents).await.map_err(refused)?)))
    }

    pub(super) async fn keep_file(
        &self,
        name: &str,
        content: Vec<u8>,
    ) -> Result<Arc<dyn SourceFiles>, Error> {
        Ok(Arc::new(Files(self.images.source_file(name, content).await.map_err(refused)?)))
    }

    pub(super) async fn fetch_file(&self, url: &str, name: &str) -> Result<Arc<dyn SourceFiles>, Error> {
        Ok(Arc::new(Files(self.images.source_web(url, name).await.map_err(refused)?)))
    }
}

impl NodeStreams {
    /// Listens on a new socket in a volume that is a directory.
    pub(super) async fn listen_in(
        &self,
        volume: VolumeId,
        asked: SocketAsked,
    ) -> Result<UnixListener, Error> {
        let status = self.store.get::<VolumeStatus>(&volume.to_string());
        let status = status.filter(|status| status.record.form() == Some(Form::Directory));
        let Some(path) = status.and_then(|status| status.record.path.clone()) else {
            return Err(Error::new(Code::Conflict, "the volume is no directory, or is not there yet"));
        };
        let SocketAsked { name, mode, uid, gid } = asked;
        let listening =
            blocking(move || socket::listen(&PathBuf::from(path), name, mode, (uid, gid))).await?;
        listening.and_then(UnixListener::from_std).map_err(local)
    }
}

fn listed(entry: Entry) -> Result<SourceEntry, Error> {
    let kind = match entry.kind {
        Kind::File => SourceKind::File,
        Kind::HardLink => SourceKind::HardLink,
        Kind::Symlink => SourceKind::Symlink,
        Kind::Directory => SourceKind::Directory,
        Kind::Fifo => SourceKind::Fifo,
        Kind::CharDevice => SourceKind::CharDevice,
        Kind::BlockDevice => SourceKind::BlockDevice,
    };
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).map_err(|error| {
            let shown = String::from_utf8_lossy(error.as_bytes()).into_owned();
            Error::new(Code::Unsupported, format!("the name {shown:.200?} is no UTF-8"))
                .hint("take the files as a tar: --output type=tar")
        })
    };
    let id = |id: u64| u32::try_from(id).unwrap_or(u32::MAX);
    Ok(SourceEntry {
        path: text(entry.path)?,
        kind,
        mode: entry.mode,
        uid: id(entry.uid),
        gid: id(entry.gid),
        size_bytes: entry.size_bytes,
        mtime_s: entry.mtime.0,
        link: text(entry.link)?,
        xattrs: entry
            .xattrs
            .into_iter()
            .map(|(name, value)| Ok((text(name)?, value)))
            .collect::<Result<_, _>>()?,
    })
}

fn entry(listed: SourceEntry) -> Entry {
    let kind = match listed.kind {
        SourceKind::File => Kind::File,
        SourceKind::HardLink => Kind::HardLink,
        SourceKind::Symlink => Kind::Symlink,
        SourceKind::Directory => Kind::Directory,
        SourceKind::Fifo => Kind::Fifo,
        SourceKind::CharDevice => Kind::CharDevice,
        SourceKind::BlockDevice => Kind::BlockDevice,
    };
    Entry {
        path: listed.path.into_bytes(),
        link: listed.link.into_bytes(),
        kind,
        mode: listed.mode,
        uid: listed.uid.into(),
        gid: listed.gid.into(),
        size_bytes: 0,
        mtime: (listed.mtime_s, 0),
        xattrs: listed.xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect(),
    }
}
