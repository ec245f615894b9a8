//! Opened files of a container, wherever they are: on this host, or under a kernel of its own.

use super::{Change, ContainerFiles, FilesError, Into, PathStat, inside::InsideFiles};
use crate::image::pipe::Body;
use std::{fmt::Debug, sync::Arc};

/// Opened files.
#[derive(Debug)]
pub enum OpenFiles {
    /// In directories, or on a disk, of this host.
    Here(ContainerFiles),
    /// In the machine of a pod.
    Inside(InsideFiles),
}

/// Something that is given back when nobody holds it any more.
pub type Kept = Arc<dyn Debug + Send + Sync>;

impl OpenFiles {
    /// Has this kept until the work on them is done or refused, and by a machine that is started for it until that is up, also
    /// when who asked is gone.
    pub fn keeping(self, kept: Option<Kept>) -> Self {
        match self {
            Self::Here(files) => Self::Here(files),
            Self::Inside(files) => Self::Inside(files.keeping(kept)),
        }
    }

    /// What lies at a path.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub async fn look(self, path: String) -> Result<PathStat, FilesError> {
        match self {
            Self::Here(files) => files.look(path).await,
            Self::Inside(files) => files.look(path).await,
        }
    }

    /// Paths that differ from the image's, in their order.
    ///
    /// # Errors
    /// What cannot be read, or more changes than can be told.
    pub async fn compare(self) -> Result<Vec<Change>, FilesError> {
        match self {
            Self::Here(files) => files.compare().await,
            Self::Inside(files) => files.compare().await,
        }
    }

    /// Bytes of the files that the container wrote.
    ///
    /// # Errors
    /// What cannot be read.
    pub async fn weigh(self) -> Result<u64, FilesError> {
        match self {
            Self::Here(files) => files.weigh().await,
            Self::Inside(files) => files.weigh().await,
        }
    }

    /// What lies at a path, as an archive that is made as it is read. Reading fails where packing does.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub async fn send(self, path: String) -> Result<(PathStat, Body), FilesError> {
        match self {
            Self::Here(files) => files.send(path).await,
            Self::Inside(files) => files.send(path).await,
        }
    }

    /// All its files but those of volumes, as an archive that is made as it is read.
    ///
    /// # Errors
    /// No thread can be had, or its machine not be asked.
    pub async fn send_all(self) -> Result<Body, FilesError> {
        match self {
            Self::Here(files) => files.send_all(),
            Self::Inside(files) => files.send_all().await,
        }
    }

    /// What it changed, as an archive of a layer that is made as it is read. No time in it is later than `newest_s`.
    ///
    /// # Errors
    /// No thread can be had, or its machine not be asked.
    pub async fn send_layer(self, newest_s: Option<i64>) -> Result<Body, FilesError> {
        match self {
            Self::Here(files) => files.send_layer(newest_s),
            Self::Inside(files) => files.send_layer(newest_s).await,
        }
    }

    /// Writes an archive into it.
    ///
    /// # Errors
    /// What is wrong with the place or the archive. What was written before stays.
    pub async fn receive(self, into: Into, body: Body) -> Result<(), FilesError> {
        match self {
            Self::Here(files) => files.receive(into, body).await,
            Self::Inside(files) => files.receive(into, body).await,
        }
    }
}
