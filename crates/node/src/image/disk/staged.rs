//! Bytes that lie ready for an image, and the bytes of an image for those who want them back.

use super::{DiskError, DiskStore, INPUT, SENT, WorkDir, at, import::copy_sparse};
use crate::image::cancel::{StopFlag, StoppableReader, run_blocking};
use model::{id::ImageId, plan::DiskFormat};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::PathBuf,
};

/// End of the name of a file that lies ready.
const STAGED: &str = ".staged";

/// The image that a name in the directory of images belongs to.
pub fn owner_of(file_name: &str) -> Option<ImageId> {
    file_name.strip_suffix(STAGED).unwrap_or(file_name).parse().ok()
}

impl DiskStore {
    fn staged_path(&self, id: ImageId) -> PathBuf {
        self.images.join(format!("{id}{STAGED}"))
    }

    /// Lays a stream ready, whole or not at all; gives its size.
    pub async fn stage(&self, id: ImageId, input: impl Read + Send + 'static) -> Result<u64, DiskError> {
        let store = self.clone();
        run_blocking(move |flag| store.stage_blocking(id, input, &flag))
            .await
            .unwrap_or(Err(DiskError::Cancelled))
    }

    fn stage_blocking(&self, id: ImageId, input: impl Read, flag: &StopFlag) -> Result<u64, DiskError> {
        let work = WorkDir::create(&self.images, self.settings.sandbox_user)?;
        let (path, place) = (work.path.join(INPUT), self.staged_path(id));
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(&path).map_err(at("create", &path))?;
        let mut input = StoppableReader::new(input, flag.clone());
        let count = copy_sparse(&mut input, &mut file, &path, self.settings.image_bytes_max, &|_| {})?;
        file.set_len(count).and_then(|()| file.sync_all()).map_err(at("write", &path))?;
        fs::rename(&path, &place).map_err(at("rename", &path))?;
        File::open(&*self.images).and_then(|dir| dir.sync_all()).map_err(at("flush", &self.images))?;
        Ok(count)
    }

    /// What lies ready, with its size.
    pub async fn open_staged(&self, id: ImageId) -> Result<(tokio::fs::File, u64), DiskError> {
        let path = self.staged_path(id);
        let file = tokio::fs::File::open(&path).await.map_err(at("open", &path))?;
        let size = file.metadata().await.map_err(at("look at", &path))?.len();
        Ok((file, size))
    }

    /// Removes what lies ready. Fine when it is gone.
    pub async fn delete_staged(&self, id: ImageId) -> Result<(), DiskError> {
        let path = self.staged_path(id);
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// The file of an image as it was sent. It may be longer than what was sent by the padding of a last sector.
    pub async fn open_sent(
        &self,
        id: ImageId,
        format: Option<DiskFormat>,
    ) -> Result<tokio::fs::File, DiskError> {
        let sent = self.images.join(id.to_string()).join(SENT);
        match tokio::fs::File::open(&sent).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result.map_err(at("open", &sent)),
        }
        let path = super::image_path(&self.images, id, format);
        tokio::fs::File::open(&path).await.map_err(at("open", &path))
    }
}
