//! The serial console of one running VM: one connection to QEMU, many readers and writers.
//!
//! QEMU's socket serves one client, so the daemon holds it and shares it. QEMU itself appends every byte to the log, also
//! while no daemon runs; here is only what is needed to show the last screenful to a newcomer, which after a restart
//! comes from the log. Must never let a slow reader hold up the guest: it is told so and dropped.
//!
//! ```text
//!  guest ⇄ QEMU ─┬─▶ console.log (appended by QEMU, cut here when too long)
//!                └─ socket ⇄ pump ─▶ ring ─▶ readers
//!                             ▲───── queue ◀─ writers
//! ```

use bytes::Bytes;
use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{broadcast, mpsc},
    task::JoinHandle,
};

use super::files;

/// Bytes that a newcomer is shown.
const RING_BYTES_MAX: usize = 64 * 1024;
/// Pieces (of at most 4 KiB) that a reader may lag behind.
const LAG_PIECES_MAX: usize = 256;
/// Pieces of input that wait for a guest that does not read.
const INPUT_PIECES_MAX: usize = 64;
/// Size at which the log is moved aside; one older log is kept.
pub const LOG_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The log's size is looked at each time so many bytes came.
const LOG_CHECK_BYTES: usize = 64 * 1024;
const PIECE_BYTES: usize = 4096;

/// A console that is connected.
#[derive(Debug)]
pub struct Console {
    output: Arc<Output>,
    input: mpsc::Sender<Bytes>,
    pump: JoinHandle<()>,
}

/// What readers get. Locked as one, so that a newcomer gets each piece once: with the ring or after it.
#[derive(Debug)]
struct Output {
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    ring: VecDeque<u8>,
    /// None once QEMU has closed the console.
    readers: Option<broadcast::Sender<Bytes>>,
}

impl Console {
    /// Connects to QEMU's socket; what was printed before comes from the log.
    pub async fn connect(socket: &Path, log: &Path) -> io::Result<Console> {
        rotate(log, LOG_BYTES_MAX)?;
        let before = files::tail(log, RING_BYTES_MAX as u64).unwrap_or_default();
        let stream = UnixStream::connect(socket).await?;
        let readers = Some(broadcast::Sender::new(LAG_PIECES_MAX));
        let output =
            Arc::new(Output { shared: Mutex::new(Shared { ring: VecDeque::from(before), readers }) });
        let (input, queue) = mpsc::channel(INPUT_PIECES_MAX);
        let pump = tokio::spawn(pump(stream, output.clone(), queue, log.to_owned()));
        Ok(Console { output, input, pump })
    }

    /// A two-way stream: first what was printed last, then what comes; what is written reaches the guest.
    pub fn open(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let (recent, pieces) = self.output.subscribe();
        tokio::spawn(serve(ours, recent, pieces, self.input.clone()));
        Ok(theirs)
    }

    /// Whether QEMU has closed the console.
    pub fn is_closed(&self) -> bool {
        self.pump.is_finished()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Output {
    fn subscribe(&self) -> (Bytes, broadcast::Receiver<Bytes>) {
        let mut shared = self.shared.lock().expect("no holder panics");
        let recent = Bytes::copy_from_slice(shared.ring.make_contiguous());
        // Of a closed console only the past is left: a receiver without a sender ends at once.
        let closed = || broadcast::channel(1).1;
        (recent, shared.readers.as_ref().map_or_else(closed, broadcast::Sender::subscribe))
    }

    fn publish(&self, piece: Bytes) {
        let mut shared = self.shared.lock().expect("no holder panics");
        shared.ring.extend(&piece);
        let excess = shared.ring.len().saturating_sub(RING_BYTES_MAX);
        shared.ring.drain(..excess);
        if let Some(readers) = &shared.readers {
            // Nobody reading is fine.
            let _ = readers.send(piece);
        }
    }

    fn close(&self) {
        self.shared.lock().expect("no holder panics").readers = None;
    }
}

/// Ends when QEMU closes the console, and with it every reader's stream.
async fn pump(stream: UnixStream, output: Arc<Output>, mut queue: mpsc::Receiver<Bytes>, log: PathBuf) {
    let (mut read, mut write) = stream.into_split();
    let forward = tokio::spawn(async move {
        while let Some(piece) = queue.recv().await {
            if write.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    let _abort = AbortOnDrop(forward);
    let mut buffer = vec![0; PIECE_BYTES];
    let mut unchecked = 0;
    while let Ok(count @ 1..) = read.read(&mut buffer).await {
        output.publish(Bytes::copy_from_slice(&buffer[..count]));
        unchecked += count;
        if unchecked >= LOG_CHECK_BYTES {
            unchecked = 0;
            if let Err(error) = rotate(&log, LOG_BYTES_MAX) {
                tracing::warn!(log = %log.display(), %error, "the console's log is not cut");
            }
        }
    }
    output.close();
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves one reader until it leaves, lags or the console closes.
async fn serve(
    stream: UnixStream,
    recent: Bytes,
    mut pieces: broadcast::Receiver<Bytes>,
    input: mpsc::Sender<Bytes>,
) {
    let (mut read, mut write) = stream.into_split();
    if write.write_all(&recent).await.is_err() {
        return;
    }
    let typed = async {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(count @ 1..) = read.read(&mut buffer).await {
            if input.send(Bytes::copy_from_slice(&buffer[..count])).await.is_err() {
                return;
            }
        }
    };
    let shown = async {
        loop {
            let piece = match pieces.recv().await {
                Ok(piece) => piece,
                Err(broadcast::error::RecvError::Closed) => return,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let notice = b"\r\n[holm: this reader was too slow and is disconnected]\r\n";
                    let _ = write.write_all(notice).await;
                    return;
                }
            };
            if write.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = typed => {}, () = shown => {} }
}

/// The log that is moved aside.
pub fn old_log(log: &Path) -> PathBuf {
    log.with_extension("log.1")
}

/// Moves a log of more than `bytes_max` aside. QEMU keeps it open and appends, so it is copied and then emptied; bytes
/// that come between the last copy and the cut (microseconds) are lost to the log.
pub fn rotate(log: &Path, bytes_max: u64) -> io::Result<()> {
    let long = match fs::metadata(log) {
        Ok(data) => data.len() > bytes_max,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if long {
        fs::copy(log, old_log(log))?;
        fs::OpenOptions::new().write(true).open(log)?.set_len(0)?;
    }
    Ok(())
}

/// The last bytes of the log, over both files.
pub fn log_tail(log: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error),
    };
    let new = files::tail(log, bytes_max as u64).or_else(missing)?;
    if new.len() >= bytes_max {
        return Ok(new);
    }
    let mut all = files::tail(&old_log(log), (bytes_max - new.len()) as u64).or_else(missing)?;
    all.extend(new);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::{net::UnixListener, time::timeout};

    /// A console and QEMU's end of it.
    async fn connected(scratch: &Path) -> (Console, UnixStream) {
        let socket = scratch.join("serial.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        fs::write(scratch.join("console.log"), "before\n").unwrap();
        let console = Console::connect(&socket, &scratch.join("console.log")).await.unwrap();
        (console, listener.accept().await.unwrap().0)
    }

    async fn read_until(stream: &mut UnixStream, end: &str) -> String {
        let mut text = String::new();
        let mut buffer = [0; 1024];
        let reading = async {
            while !text.ends_with(end) {
                let count = stream.read(&mut buffer).await.unwrap();
                assert!(count > 0, "closed after {text:?}");
                text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        };
        timeout(Duration::from_secs(5), reading).await.expect("it comes in time");
        text
    }

    #[tokio::test]
    async fn readers_see_the_past_and_the_present_and_all_may_write() {
        let scratch = tempfile::tempdir().unwrap();
        let (console, mut qemu) = connected(scratch.path()).await;
        let mut one = console.open().unwrap();
        qemu.write_all(b"login: ").await.unwrap();
        assert_eq!(read_until(&mut one, "login: ").await, "before\nlogin: ");
        let mut two = console.open().unwrap();
        assert_eq!(read_until(&mut two, "login: ").await, "before\nlogin: ");
        two.write_all(b"root\n").await.unwrap();
        assert_eq!(read_until(&mut qemu, "\n").await, "root\n");
        drop(qemu);
        let mut rest = Vec::new();
        timeout(Duration::from_secs(5), one.read_to_end(&mut rest)).await.expect("closed in time").unwrap();
    }

    #[tokio::test]
    async fn a_slow_reader_is_dropped_and_holds_up_nobody() {
        let scratch = tempfile::tempdir().unwrap();
        let (console, mut qemu) = connected(scratch.path()).await;
        let mut slow = console.open().unwrap();
        let mut sent = 0;
        let flood = async {
            while sent < 16 * 1024 * 1024 {
                qemu.write_all(&[b'x'; PIECE_BYTES]).await.unwrap();
                sent += PIECE_BYTES;
            }
        };
        timeout(Duration::from_secs(20), flood).await.expect("the guest is not held up");
        let mut seen = Vec::new();
        timeout(Duration::from_secs(20), slow.read_to_end(&mut seen)).await.expect("dropped").unwrap();
        assert!(seen.len() < sent);
        assert!(String::from_utf8_lossy(&seen).contains("too slow"));
    }

    #[test]
    fn a_long_log_is_moved_aside_and_still_read() {
        let scratch = tempfile::tempdir().unwrap();
        let log = scratch.path().join("console.log");
        rotate(&log, 10).unwrap();
        fs::write(&log, "0123456789").unwrap();
        rotate(&log, 10).unwrap();
        assert!(!old_log(&log).exists());
        fs::write(&log, "0123456789a").unwrap();
        rotate(&log, 10).unwrap();
        fs::write(&log, "new").unwrap();
        assert_eq!(log_tail(&log, 5).unwrap(), b"9anew");
        assert_eq!(log_tail(&log, 2).unwrap(), b"ew");
        assert_eq!(log_tail(&log, 100).unwrap(), b"0123456789anew");
    }
}
