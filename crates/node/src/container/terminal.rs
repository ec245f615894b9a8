//! Joins the near end of a terminal with the streams of whoever uses it.

use crate::driver::Stdio;
use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};
use tokio::io::{
    Interest,
    unix::{AsyncFd, AsyncFdReadyGuard},
};

/// Bytes moved at a time.
const CHUNK_BYTES: usize = 16 * 1024;

/// Moves bytes between a terminal and a client's streams until the terminal closes. With a terminal, standard input of
/// the client may be the one stream of both directions; output goes to `stdout` if it is given.
pub fn join(terminal: OwnedFd, stdio: Stdio) -> io::Result<()> {
    let output = match (&stdio.stdout, &stdio.stdin) {
        (Some(stdout), _) => Some(stdout.try_clone()?),
        (None, Some(stdin)) => Some(stdin.try_clone()?),
        (None, None) => None,
    };
    let (reading, writing) = (end(terminal.try_clone()?)?, end(terminal)?);
    if let Some(input) = stdio.stdin {
        let input = end(input)?;
        tokio::spawn(pour(input, writing));
    }
    if let Some(output) = output {
        tokio::spawn(pour(reading, end(output)?));
    }
    Ok(())
}

/// An end of a stream: waited for by the runtime if it can be, else always ready (a file).
enum End {
    Waited(AsyncFd<File>),
    Ready(File),
}

fn end(fd: OwnedFd) -> io::Result<End> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_truncate(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let file = File::from(fd);
    // A plain file cannot be waited for, and need not be.
    if file.metadata()?.is_file() {
        return Ok(End::Ready(file));
    }
    #[expect(deprecated, reason = "a File keeps the promises that the successor, which is unsafe, asks for")]
    let waited = AsyncFd::new(file)?;
    Ok(End::Waited(waited))
}

impl End {
    async fn attempt(
        &self,
        interest: Interest,
        mut work: impl FnMut(&File) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let waited = match self {
            Self::Ready(file) => return work(file),
            Self::Waited(waited) => waited,
        };
        loop {
            let mut guard: AsyncFdReadyGuard<'_, File> = waited.ready(interest).await?;
            if let Ok(result) = guard.try_io(|file| work(file.get_ref())) {
                return result;
            }
        }
    }
}

/// Copies until either end closes.
async fn pour(from: End, to: End) {
    use std::io::{Read, Write};
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = match from.attempt(Interest::READABLE, |mut file| file.read(&mut buffer)).await {
            // A terminal reports its last close as EIO.
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        let mut sent = 0;
        while sent < length {
            match to.attempt(Interest::WRITABLE, |mut file| file.write(&buffer[sent..length])).await {
                Ok(0) | Err(_) => return,
                Ok(more) => sent += more,
            }
        }
    }
}
