//! Files of containers: from the door's words to the node's.

use super::{NodeStreams, explain};
use api::streams::{FileChange, FileChangeKind, FileStat, FilesIn, Reader};
use control::Error;
use model::{error::Code, instance::Instance};
use node::{
    container::files::{ChangeKind, FilesError, Into, Kept, OpenFiles, PathStat},
    instance::{InstanceError, sentence},
};
use std::sync::Arc;

/// A failure with the container's name.
pub(super) fn refused(instance: &Instance, error: &FilesError) -> Error {
    let name = &instance.meta.name;
    let message = match error {
        FilesError::Missing(path) => format!("Could not find the file {path} in container {name}"),
        error => format!("container {name}: {}", sentence(error)),
    };
    Error::new(error.code(), message).hint(error.hint())
}

fn told(stat: PathStat) -> FileStat {
    let PathStat { name, size_bytes, mode, mtime, link_target } = stat;
    FileStat { name, size_bytes, mode, mtime, link_target }
}

/// What could not be made ready, as a door tells it.
fn unready(error: &InstanceError) -> Error {
    let fault = error.fault(jiff::Timestamp::now());
    Error::new(Code::Conflict, fault.message).hint(fault.hint)
}

impl NodeStreams {
    /// Opens them for work on what is in them. The loan is kept until that has begun.
    pub(super) async fn open_files(&self, instance: &Instance) -> Result<OpenFiles, Error> {
        let loan = self.instances.lend(instance).await.map_err(|error| unready(&error))?;
        let files = self.look_at_files(instance).await?;
        Ok(files.keeping(loan.map(|loan| Arc::new(loan) as Kept)))
    }

    async fn look_at_files(&self, instance: &Instance) -> Result<OpenFiles, Error> {
        let driver = self.driver(instance)?;
        // What it would run if it were started now: for one that runs, its shim knows better.
        let plan = self.instances.plan(instance).map_err(|error| unready(&error))?;
        driver.files(&plan).await.map_err(|error| explain(instance, error))
    }

    pub(super) async fn stat_file(&self, instance: &Instance, path: &str) -> Result<FileStat, Error> {
        let files = self.open_files(instance).await?;
        files.look(path.to_string()).await.map(told).map_err(|error| refused(instance, &error))
    }

    pub(super) async fn send_files(
        &self,
        instance: &Instance,
        path: &str,
    ) -> Result<(FileStat, Reader), Error> {
        let files = self.open_files(instance).await?;
        let sent = files.send(path.to_string()).await.map_err(|error| refused(instance, &error))?;
        Ok((told(sent.0), sent.1))
    }

    pub(super) async fn receive_files(
        &self,
        instance: &Instance,
        into: FilesIn,
        archive: Reader,
    ) -> Result<(), Error> {
        let FilesIn { path, keeps_kinds, as_user } = into;
        let files = self.open_files(instance).await?;
        let received = files.receive(Into { path, keeps_kinds, as_user }, archive).await;
        received.map_err(|error| refused(instance, &error))
    }

    pub(super) async fn compare_files(&self, instance: &Instance) -> Result<Vec<FileChange>, Error> {
        let files = self.open_files(instance).await?;
        let changes = files.compare().await.map_err(|error| refused(instance, &error))?;
        let kind = |kind| match kind {
            ChangeKind::Modified => FileChangeKind::Modified,
            ChangeKind::Added => FileChangeKind::Added,
            ChangeKind::Deleted => FileChangeKind::Deleted,
        };
        Ok(changes.into_iter().map(|it| FileChange { path: it.path, kind: kind(it.kind) }).collect())
    }

    pub(super) async fn weigh_files(&self, instance: &Instance) -> Result<u64, Error> {
        let files = self.look_at_files(instance).await?;
        files.weigh().await.map_err(|error| refused(instance, &error))
    }

    pub(super) async fn send_all_files(&self, instance: &Instance) -> Result<Reader, Error> {
        let files = self.open_files(instance).await?;
        files.send_all().await.map_err(|error| refused(instance, &error))
    }
}
