//! The files' blocking work for async code, and archives between it and clients.
//!
//! Each work has a thread of its own, because unpacking changes who the thread is. Its number is bounded by the streams
//! that a door lets open.

use super::{Change, ContainerFiles, FilesError, Into, PathStat, io_at};
use crate::image::pipe::{Body, Taker, pipe};
use std::io;
use tokio::sync::oneshot;

/// Runs blocking work on a thread of its own.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, FilesError> {
    let (told, outcome) = oneshot::channel();
    spawn(move || {
        // Nobody waits any more: the work is done all the same.
        let _ = told.send(work());
    })?;
    outcome.await.unwrap_or_else(|_| Err(panicked()))
}

pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), FilesError> {
    let thread = std::thread::Builder::new().name("files".into());
    thread.spawn(work).map(|_| ()).map_err(io_at("make a thread"))
}

pub(super) fn panicked() -> FilesError {
    io_at("end the work")(io::Error::other("a step panicked"))
}

impl ContainerFiles {
    /// [`Self::stat`], from async code.
    ///
    /// # Errors
    /// The same.
    pub async fn look(self, path: String) -> Result<PathStat, FilesError> {
        run(move || self.stat(&path)).await
    }

    /// [`Self::changes`], from async code.
    ///
    /// # Errors
    /// The same.
    pub async fn compare(self) -> Result<Vec<Change>, FilesError> {
        run(move || self.changes()).await
    }

    /// [`Self::written_bytes`], from async code.
    ///
    /// # Errors
    /// The same.
    pub async fn weigh(self) -> Result<u64, FilesError> {
        run(move || self.written_bytes()).await
    }

    /// What lies at a path, as an archive that is made as it is read. Reading fails where packing does.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub async fn send(self, path: String) -> Result<(PathStat, Body), FilesError> {
        let (told, found) = oneshot::channel();
        let (body, maker) = pipe(self.turn.hurry.clone());
        spawn(move || match self.open_for_packing(&path) {
            Ok((stat, asked, found)) => {
                if told.send(Ok(stat)).is_ok() {
                    maker.make(|output| self.pack(&asked, found, output));
                }
            }
            Err(error) => {
                let _ = told.send(Err(error));
            }
        })?;
        Ok((found.await.unwrap_or_else(|_| Err(panicked()))?, body))
    }

    /// All its files but those of volumes, as an archive that is made as it is read.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn send_all(self) -> Result<Body, FilesError> {
        let (body, maker) = pipe(self.turn.hurry.clone());
        spawn(move || maker.make(|output| self.export(output)))?;
        Ok(body)
    }

    /// What it changed, as an archive of a layer that is made as it is read. No time in it is later than `newest_s`.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn send_layer(self, newest_s: Option<i64>) -> Result<Body, FilesError> {
        let (body, maker) = pipe(self.turn.hurry.clone());
        spawn(move || maker.make(|output| self.pack_layer(output, newest_s)))?;
        Ok(body)
    }

    /// Writes an archive into it.
    ///
    /// # Errors
    /// What is wrong with the place or the archive. What was written before stays.
    pub async fn receive(self, into: Into, body: Body) -> Result<(), FilesError> {
        let hurry = self.turn.hurry.clone();
        let input = Taker::new(body, hurry.clone());
        let outcome = run(move || self.unpack(&into, input)).await;
        // The cause of what the reader saw.
        if outcome.is_err() && hurry.is_cancelled() { Err(FilesError::Moving) } else { outcome }
    }
}
