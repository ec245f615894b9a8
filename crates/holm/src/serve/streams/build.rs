//! Files that images are built from: from the door's words to the node's.

use super::{NodeStreams, refused};
use api::streams::{Owner, Pick, Picked, Reader, SourceEntry, SourceFiles, SourceKind, Target};
use async_trait::async_trait;
use control::Error;
use model::{dockerfile::ignore::Ignore, error::Code};
use node::image::{
    source,
    tar::{Entry, Kind},
};
use std::sync::Arc;

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
