//! Images that users send: streamed from the door into the stores, and told of while they come.
//!
//! ```text
//!  body ──► pump ──► channel (bounded) ──► a blocking reader ──► disk store | archive reader
//!            └── counts the bytes: progress
//! ```
//!
//! The door's reader fails at its end when the bytes are not as promised, so an image is taken only after that end was
//! seen. A stream that just stops is never mistaken for one that ended.

use super::{
    disk::{DiskError, Expect},
    layout::import_tar,
    reconcile::{Images, PROGRESS_EVERY, unwritten},
};
use crate::instance::sentence;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use model::{
    error::{Code, Fault},
    id::ImageId,
    image::{Image, ImageContent, ImageKind, ImageState, ImageStatus},
    image_digest::Digest,
    image_manifest::Platform,
};
use std::{
    io::{self, Read},
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
    time::{Instant, interval_at},
};

/// Bytes of one piece on its way.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait for the disk before the sender has to.
const PIECES_MAX: usize = 8;

enum Piece {
    Bytes(Bytes),
    /// The sender said all of it.
    End,
    /// The sender broke off.
    Broken(io::Error),
}

/// The stream as blocking code reads it.
pub(super) struct Arriving {
    pieces: mpsc::Receiver<Piece>,
    rest: Bytes,
    ended: bool,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.rest = bytes,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Broken(error)) => return Err(error),
                // Whoever sent went away without a word.
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

/// Moves the body to the reader, and to its end even if the reader has enough: the end tells whether it was whole.
async fn pump(
    body: &mut (impl AsyncRead + Unpin + Send),
    pieces: mpsc::Sender<Piece>,
    came_bytes: &AtomicU64,
) -> Result<(), String> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE_BYTES);
        match body.read_buf(&mut buffer).await {
            Ok(0) => {
                let _ = pieces.send(Piece::End).await;
                return Ok(());
            }
            Ok(count) => {
                came_bytes.fetch_add(count as u64, Ordering::Relaxed);
                let _ = pieces.send(Piece::Bytes(buffer.split().freeze())).await;
            }
            Err(error) => {
                let told = error.to_string();
                let _ = pieces.send(Piece::Broken(error)).await;
                return Err(told);
            }
        }
    }
}

/// Says that an image is being sent, as long as it lives.
pub(super) struct Turn<'a>(&'a Images, ImageId);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.arriving().remove(&self.1);
    }
}

pub(super) fn fault(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Fault {
    Fault { code, message: message.into(), hint: hint.into(), since: Timestamp::now() }
}

pub(super) fn refused(error: &DiskError) -> Fault {
    fault(error.code(), sentence(error), error.hint())
}

impl Images {
    /// Takes the bytes of an image that a user sends, and returns when they are kept for good and the status says so.
    /// One sender at a time, and none for an image that is here.
    ///
    /// # Errors
    /// What is wrong with the bytes; nothing of them is kept then.
    pub async fn take_upload(
        &self,
        image: &Image,
        mut body: impl AsyncRead + Unpin + Send,
        total: Option<u64>,
    ) -> Result<(), Fault> {
        let id = image.meta.id;
        let _turn = self.begin(image)?;
        let outcome = self.receive(id, &mut body, total.unwrap_or(0), |input| self.take(image, input)).await;
        self.conclude(image, outcome.map(ImageState::Ready)).await
    }

    /// Lays the bytes that a user sends ready for an import, and returns when they are kept and the status says so.
    ///
    /// # Errors
    /// As [`Self::take_upload`]; the bytes are not looked at.
    pub async fn take_staged(
        &self,
        image: &Image,
        mut body: impl AsyncRead + Unpin + Send,
        total: Option<u64>,
    ) -> Result<(), Fault> {
        let id = image.meta.id;
        let _turn = self.begin(image)?;
        let stage = |input| async move { self.disks.stage(id, input).await.map_err(|error| refused(&error)) };
        let outcome = self.receive(id, &mut body, total.unwrap_or(0), stage).await;
        self.conclude(image, outcome.map(|size_bytes| ImageState::Staged { size_bytes })).await
    }

    /// Writes how the coming in of an image ended; what came for an image that was deleted meanwhile is removed.
    pub(super) async fn conclude(
        &self,
        image: &Image,
        outcome: Result<ImageState, Fault>,
    ) -> Result<(), Fault> {
        let id = image.meta.id;
        let state = match outcome {
            Ok(state) if self.store.get::<Image>(&id.to_string()).is_some() => state,
            Ok(_) => {
                self.disks.delete_image(id).await.map_err(|error| refused(&error))?;
                return Err(fault(Code::NotFound, format!("image {} was deleted", image.meta.name), ""));
            }
            Err(fault) => {
                if let Err(error) = self.write(id, ImageState::Failed(fault.clone())).await {
                    tracing::warn!(%error, image = %image.meta.name, "the fault of an image could not be written");
                }
                return Err(fault);
            }
        };
        self.write(id, state).await.map_err(unwritten)
    }

    pub(super) fn begin(&self, image: &Image) -> Result<Turn<'_>, Fault> {
        let (id, name) = (image.meta.id, &image.meta.name);
        if !self.arriving().insert(id) {
            return Err(fault(
                Code::Conflict,
                format!("image {name} is being sent already"),
                "wait for that to end",
            ));
        }
        let turn = Turn(self, id);
        let status = self.store.get::<ImageStatus>(&id.to_string());
        if status.is_some_and(|s| s.record.content().is_some()) {
            let hint = "an image never changes; make another";
            return Err(fault(Code::Conflict, format!("image {name} has its content already"), hint));
        }
        Ok(turn)
    }

    /// Moves a body to whoever takes it, and tells how far it is.
    pub(super) async fn receive<T, F: Future<Output = Result<T, Fault>> + Send>(
        &self,
        id: ImageId,
        body: &mut (impl AsyncRead + Unpin + Send),
        total_bytes: u64,
        taker: impl FnOnce(Arriving) -> F,
    ) -> Result<T, Fault> {
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let came_bytes = AtomicU64::new(0);
        let input = Arriving { pieces, rest: Bytes::new(), ended: false };
        let (take, pump) = (taker(input), pump(body, sender, &came_bytes));
        tokio::pin!(take, pump);
        let mut tick = interval_at(Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
        let (mut taken, mut sent, mut told_bytes) = (None, false, 0);
        loop {
            if sent && let Some(content) = taken.take() {
                return Ok(content);
            }
            // The sender's own error comes first: what the reader makes of it is no cause.
            tokio::select! {
                biased;
                end = &mut pump, if !sent => match end {
                    Ok(()) => sent = true,
                    Err(error) => {
                        // The reader hears of it too, and is done when nothing of the image is left.
                        if taken.is_none() {
                            let _ = take.await;
                        }
                        let message = format!("the image did not arrive whole: {error}");
                        return Err(fault(Code::Invalid, message, "send it again"));
                    }
                },
                done = &mut take, if taken.is_none() => taken = Some(done?),
                _ = tick.tick() => {
                    let done_bytes = came_bytes.load(Ordering::Relaxed);
                    if done_bytes != std::mem::replace(&mut told_bytes, done_bytes) {
                        let state = ImageState::Fetching { done_bytes, total_bytes };
                        self.write(id, state).await.map_err(unwritten)?;
                    }
                }
            }
        }
    }

    pub(super) async fn take(&self, image: &Image, input: Arriving) -> Result<ImageContent, Fault> {
        let expect = match image.kind {
            ImageKind::Oci => return self.take_archive(image.meta.id, input, None, false).await,
            ImageKind::System => return self.take_archive(image.meta.id, input, None, true).await,
            ImageKind::Disk => Expect::Disk,
            ImageKind::Kernel | ImageKind::Initrd => Expect::Bytes,
        };
        let taken = self.disks.import(image.meta.id, input, expect, None, |_| {}).await;
        let taken = taken.map_err(|error| refused(&error))?;
        Ok(ImageContent {
            digest: taken.digest.to_string(),
            size_bytes: taken.sent_bytes,
            virtual_bytes: taken.virtual_bytes,
            format: (expect == Expect::Disk).then_some(taken.format),
            oci: None,
            sent_format: (expect == Expect::Disk).then(|| taken.detected.file_format()),
            hashes: Some(taken.hashes),
        })
    }

    /// Takes the image out of an archive that a user sends (an OCI layout or `docker save`), or takes the archive for the one
    /// layer of an image (`is_root`). The archive is kept: who asks for the image's bytes gets those that were sent.
    pub(super) async fn take_archive(
        &self,
        id: ImageId,
        input: Arriving,
        expected: Option<Digest>,
        is_root: bool,
    ) -> Result<ImageContent, Fault> {
        let taken = self.disks.import(id, input, Expect::Archive, expected, |_| {}).await;
        let taken = taken.map_err(|error| refused(&error))?;
        let outcome = match std::fs::File::open(&taken.path) {
            Ok(archive) if is_root => self.unpack_root(archive).await,
            Ok(archive) => self.unpack_archive(archive).await,
            Err(error) => Err(fault(Code::Internal, format!("the archive cannot be read: {error}"), "")),
        };
        match outcome {
            Ok(content) => {
                Ok(ImageContent { size_bytes: taken.sent_bytes, hashes: Some(taken.hashes), ..content })
            }
            Err(fault) => {
                self.disks.delete_image(id).await.map_err(|error| refused(&error))?;
                Err(fault)
            }
        }
    }

    async fn unpack_archive(&self, input: std::fs::File) -> Result<ImageContent, Fault> {
        let _hold = self.collector.hold().await;
        let platform = Platform::linux_on(std::env::consts::ARCH);
        let mut found = import_tar(&self.blobs, input, &platform)
            .await
            .map_err(|e| fault(e.code(), sentence(&e), e.hint()))?;
        let image = match (found.pop(), found.len()) {
            (Some(one), 0) => one.image,
            (None, _) => return Err(fault(Code::Invalid, "the archive holds no image for this host", "")),
            (Some(_), more) => {
                let message = format!("the archive holds {} images", more + 1);
                return Err(fault(Code::Invalid, message, "save one image into an archive"));
            }
        };
        image.unpack(&self.blobs, &self.layers, |_| {}).await.map_err(|e| {
            fault(Code::Invalid, format!("the image could not be unpacked: {}", sentence(&e)), e.hint())
        })?;
        Ok(self.describe(&image))
    }
}
