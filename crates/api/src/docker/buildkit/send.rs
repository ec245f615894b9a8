//! What was built, to the client that asked for it (`--output`): one file as a stream of bytes, or a directory by fsutil's
//! protocol, in which the daemon has the files now (`files` is the other way round).
//!
//! ```text
//!   holm ── STAT … STAT, an empty STAT ──▶ client         what there is, in order
//!        ◀── REQ 3, REQ 4 … ──────────────                contents that it wants, each once
//!        ── DATA 3 … an empty one, DATA 4 … ─▶
//!        ◀── FIN ── ── FIN ──────────────▶
//! ```
//!
//! A client may take its time, but not stand still: each message is taken within [`ANSWER_TIMEOUT`], and so is the last word.

use super::{
    files::go,
    grpc::{self, Code, framed},
    session::{ANSWER_TIMEOUT, Answer, Call, Session},
    wire::{BytesMessage, Packet, Stat, packet},
};
use crate::{
    docker::buildkit::grpc::Status,
    error::{Failure, Result},
    streams::{Reader, SourceEntry, SourceFiles, SourceKind},
};
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::{io::AsyncReadExt, sync::mpsc};

const METHOD: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Header with the number of the output among those that were asked for.
const OUTPUT: &str = "buildkit-attachable-exporter-id";
/// Bytes of a content that are sent at a time.
const PIECE_BYTES: usize = 256 << 10;

/// The half of a call that goes to the client, and how many messages it took.
struct Sender {
    send: mpsc::Sender<Bytes>,
    taken: Arc<AtomicU64>,
}

impl Sender {
    async fn send(&self, message: &impl prost::Message) -> grpc::Result<()> {
        let stalled = |_| Status::new(Code::Unavailable, "the client takes no more of what was built");
        self.send.send_timeout(framed(message), ANSWER_TIMEOUT).await.map_err(stalled)?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The half that comes from the client. It may be silent as long as it takes what it is sent.
struct Hearer {
    answer: Answer,
    taken: Arc<AtomicU64>,
}

impl Hearer {
    async fn next<M: prost::Message + Default>(&mut self) -> grpc::Result<Option<M>> {
        loop {
            let before = self.taken.load(Ordering::Relaxed);
            match self.answer.next(ANSWER_TIMEOUT).await {
                Err(status)
                    if status.code == Code::Deadline && self.taken.load(Ordering::Relaxed) != before => {}
                heard => return heard,
            }
        }
    }
}

impl Session {
    /// Gives the client a file: what it wrote is whole when this returns.
    ///
    /// # Errors
    /// The client does not take it, or the bytes cannot be read.
    pub async fn send_file(&self, number: usize, mut content: Reader) -> Result<()> {
        let (sender, mut hearer) = self.output(number).await?;
        let sending = async move {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let unread =
                    |error| Status::new(Code::Unknown, format!("what was built cannot be read: {error}"));
                let count = content.read(&mut piece).await.map_err(unread)?;
                if count == 0 {
                    return Ok(());
                }
                piece.truncate(count);
                sender.send(&BytesMessage { data: piece.into() }).await?;
            }
        };
        let ending = async move {
            while hearer.next::<BytesMessage>().await?.is_some() {}
            Ok(())
        };
        both(sending, ending).await
    }

    /// Gives the client a directory, as [`Self::send_file`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_directory(&self, number: usize, files: Arc<dyn SourceFiles>) -> Result<()> {
        let entries = files.list().await?;
        let (sender, hearer) = self.output(number).await?;
        // Each file is asked for once.
        let (asking, asked) = mpsc::channel(entries.len().max(1));
        let wanted = entries.iter().map(|entry| entry.kind == SourceKind::File).collect();
        both(send_all(sender, &*files, &entries, asked), hear_all(hearer, wanted, asking)).await
    }

    async fn output(&self, number: usize) -> Result<(Sender, Hearer)> {
        let id = [number.to_string()];
        let call = self.open(METHOD, &[(OUTPUT, &id[..])]).await.map_err(|status| status.failure())?;
        let Call { send, answer } = call;
        let taken = Arc::new(AtomicU64::new(0));
        Ok((Sender { send, taken: Arc::clone(&taken) }, Hearer { answer, taken }))
    }
}

/// Both halves to their ends. What the client says of its own end counts more than that it takes no more.
async fn both(
    sending: impl Future<Output = grpc::Result<()>>,
    hearing: impl Future<Output = grpc::Result<()>>,
) -> Result<()> {
    let (mut sending, mut hearing) = (std::pin::pin!(sending), std::pin::pin!(hearing));
    let outcome = tokio::select! {
        biased;
        heard = &mut hearing => heard.and_then(|()| {
            Err(Status::new(Code::Unknown, "it ended before it had all"))
        }),
        sent = &mut sending => match sent {
            Ok(()) => hearing.await,
            Err(status) if status.code == Code::Unavailable => hearing.await.and(Err(status)),
            Err(status) => Err(status),
        },
    };
    outcome.map_err(|status| {
        let message = format!("the client did not take what was built: {}", status.message);
        Failure::new(status.failure().error.code, message)
    })
}

async fn send_all(
    sender: Sender,
    files: &dyn SourceFiles,
    entries: &[SourceEntry],
    mut asked: mpsc::Receiver<u32>,
) -> grpc::Result<()> {
    for entry in entries {
        let stat = Some(stat(entry));
        sender.send(&Packet { kind: packet::STAT, stat, ..Packet::default() }).await?;
    }
    sender.send(&Packet { kind: packet::STAT, ..Packet::default() }).await?;
    while let Some(id) = asked.recv().await {
        let Some(entry) = entries.get(id as usize) else { continue };
        let mut at = 0;
        loop {
            let unread = |error: control::Error| {
                Status::new(Code::Unknown, format!("{}: {}", entry.path, error.message))
            };
            let data: Bytes = files.read_at(&entry.path, at, PIECE_BYTES).await.map_err(unread)?.into();
            at += data.len() as u64;
            let is_end = data.is_empty();
            sender.send(&Packet { kind: packet::DATA, id, data, ..Packet::default() }).await?;
            if is_end {
                break;
            }
        }
    }
    sender.send(&Packet { kind: packet::FINISH, ..Packet::default() }).await
}

/// Hears what a client asks for until it has all. `wanted` are the files that it has not asked for.
async fn hear_all(mut hearer: Hearer, mut wanted: Vec<bool>, asking: mpsc::Sender<u32>) -> grpc::Result<()> {
    loop {
        let Some(packet) = hearer.next::<Packet>().await? else {
            return Err(Status::new(Code::Unavailable, "it ended too early"));
        };
        match packet.kind {
            packet::FINISH => break,
            packet::REQUEST if wanted.get(packet.id as usize) == Some(&true) => {
                wanted[packet.id as usize] = false;
                // There is room for one of each.
                let _ = asking.try_send(packet.id);
            }
            packet::ERROR => {
                let text: String = String::from_utf8_lossy(&packet.data).chars().take(400).collect();
                return Err(Status::new(Code::Unknown, text));
            }
            _ => return Err(Status::new(Code::Invalid, "it asks for what is no file")),
        }
    }
    drop(asking);
    while hearer.next::<Packet>().await?.is_some() {}
    Ok(())
}

fn stat(entry: &SourceEntry) -> Stat {
    let kind = match entry.kind {
        SourceKind::File | SourceKind::HardLink => 0,
        SourceKind::Directory => go::DIRECTORY,
        SourceKind::Symlink => go::SYMLINK,
        SourceKind::Fifo => go::FIFO,
        SourceKind::CharDevice => go::DEVICE | go::CHAR_DEVICE,
        SourceKind::BlockDevice => go::DEVICE,
    };
    Stat {
        path: entry.path.clone(),
        mode: kind | go::permissions(entry.mode),
        uid: entry.uid,
        gid: entry.gid,
        size: i64::try_from(entry.size_bytes).unwrap_or(i64::MAX),
        changed_ns: entry.mtime_s.saturating_mul(1_000_000_000),
        link: entry.link.clone(),
        xattrs: entry.xattrs.iter().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        docker::buildkit::grpc::{Messages, went_well},
        streams::{Pick, Picked},
    };
    use async_trait::async_trait;
    use control::Error;
    use futures::{StreamExt, stream};
    use http_body_util::StreamBody;
    use hyper::{
        Request, Response,
        body::{Frame, Incoming},
        server::conn::http2,
        service::service_fn,
    };
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use model::dockerfile::ignore::Ignore;
    use std::{convert::Infallible, time::Duration};

    const PATIENCE: Duration = Duration::from_secs(5);

    fn entry(path: &str, kind: SourceKind, mode: u32) -> SourceEntry {
        SourceEntry {
            path: path.into(),
            kind,
            mode,
            uid: 7,
            gid: 8,
            size_bytes: 3,
            mtime_s: 9,
            link: String::new(),
            xattrs: vec![],
        }
    }

    /// A directory, and a file in it.
    struct Two;

    #[async_trait]
    impl SourceFiles for Two {
        async fn read(&self, _: &str, _: u64) -> std::result::Result<Option<Vec<u8>>, Error> {
            Ok(None)
        }
        async fn without(&self, _: Ignore) -> std::result::Result<Arc<dyn SourceFiles>, Error> {
            Ok(Arc::new(Two))
        }
        async fn list(&self) -> std::result::Result<Vec<SourceEntry>, Error> {
            Ok(vec![entry("d", SourceKind::Directory, 0o755), entry("d/f", SourceKind::File, 0o644)])
        }
        async fn read_at(&self, path: &str, at: u64, _: usize) -> std::result::Result<Vec<u8>, Error> {
            assert_eq!(path, "d/f");
            Ok(if at == 0 { b"one".to_vec() } else { vec![] })
        }
        async fn pick(&self, _: Pick) -> std::result::Result<Arc<dyn Picked>, Error> {
            Err(Error::new(model::error::Code::Unsupported, "not asked for"))
        }
    }

    /// What a client says once it knows what there is, and how its call ends.
    #[derive(Clone)]
    struct Says {
        packets: Vec<Packet>,
        waits_for: usize,
    }

    fn packet(kind: i32, id: u32) -> Packet {
        Packet { kind, id, ..Packet::default() }
    }

    /// A client: hears what it is sent, says what it says, and gives what it heard.
    async fn sent(says: Says) -> (Result<()>, Vec<Packet>) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (heard, mut all) = mpsc::channel(64);
        let serve = service_fn(move |request: Request<Incoming>| {
            let (says, heard) = (says.clone(), heard.clone());
            async move {
                let mut messages = Messages::new(request.into_body(), &Default::default());
                let mut stats = 0;
                while stats < 3 {
                    let packet: Packet = messages.next(PATIENCE).await.unwrap().unwrap();
                    stats += 1;
                    heard.send(packet).await.unwrap();
                }
                let pieces: Vec<Bytes> = says.packets.iter().map(framed).collect();
                let (waits_for, (done, until)) = (says.waits_for, tokio::sync::oneshot::channel());
                tokio::spawn(async move {
                    for _ in 0..waits_for {
                        let Ok(Some(packet)) = messages.next::<Packet>(PATIENCE).await else { break };
                        heard.send(packet).await.unwrap();
                    }
                    let _ = done.send(());
                });
                let end = stream::once(async move {
                    let _ = until.await;
                    Frame::trailers(went_well())
                });
                let frames = stream::iter(pieces).map(Frame::data).chain(end);
                Ok::<_, Infallible>(Response::new(StreamBody::new(frames.map(Ok::<_, Infallible>).boxed())))
            }
        });
        tokio::spawn(async move {
            let _ =
                http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(far), serve).await;
        });
        let session = Session::on(near, METHOD).await;
        let outcome = session.send_directory(2, Arc::new(Two)).await;
        drop(session);
        let mut packets = vec![];
        while let Ok(packet) = all.try_recv() {
            packets.push(packet);
        }
        (outcome, packets)
    }

    #[tokio::test]
    async fn a_directory_is_sent_as_it_is_asked_for() {
        let packets = vec![packet(packet::REQUEST, 1), packet(packet::FINISH, 0)];
        // The content, its end, and the last word.
        let (outcome, heard) = sent(Says { packets, waits_for: 3 }).await;
        assert_eq!(outcome.map_err(|failure| failure.error.message), Ok(()));
        let paths: Vec<_> =
            heard[..3].iter().map(|it| it.stat.as_ref().map(|stat| stat.path.as_str())).collect();
        assert_eq!(paths, [Some("d"), Some("d/f"), None]);
        let rest: Vec<_> = heard[3..].iter().map(|it| (it.kind, it.id, &it.data[..])).collect();
        assert_eq!(rest, [(packet::DATA, 1, &b"one"[..]), (packet::DATA, 1, b""), (packet::FINISH, 0, b"")]);
    }

    #[tokio::test]
    async fn a_client_that_asks_for_what_is_not_there_is_refused() {
        let error = Packet { data: Bytes::from_static(b"no space left"), ..packet(packet::ERROR, 0) };
        for (packets, words) in [
            (vec![packet(packet::REQUEST, 0)], "no file"),
            (vec![packet(packet::REQUEST, 9)], "no file"),
            (vec![packet(packet::REQUEST, 1), packet(packet::REQUEST, 1)], "no file"),
            (vec![packet(packet::DATA, 1)], "no file"),
            (vec![error], "no space left"),
            (vec![], "too early"),
        ] {
            let (outcome, _) = sent(Says { packets, waits_for: 0 }).await;
            let message = outcome.expect_err(words).error.message;
            assert!(message.contains(words), "{words}: {message}");
        }
    }

    #[test]
    fn files_are_told_as_go_knows_them() {
        for (kind, mode, wanted) in [
            (SourceKind::File, 0o644, 0o644),
            (SourceKind::File, 0o5755, go::SET_UID | go::STICKY | 0o755),
            (SourceKind::Directory, 0o2750, go::DIRECTORY | go::SET_GID | 0o750),
            (SourceKind::Symlink, 0o777, go::SYMLINK | 0o777),
            (SourceKind::CharDevice, 0o600, go::DEVICE | go::CHAR_DEVICE | 0o600),
        ] {
            let stat = stat(&entry("a/b", kind, mode));
            assert_eq!((stat.mode, stat.size, stat.changed_ns), (wanted, 3, 9_000_000_000), "{kind:?}");
        }
    }
}
