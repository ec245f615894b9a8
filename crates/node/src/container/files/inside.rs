//! The files of a pod with a kernel of its own, from the host: asked of who stands for it, and believed nothing. For one that
//! does not run, its machine is started first, without the pod ([`Machine::Rests`]).
//!
//! ```text
//!   here ── Request::Files, two sockets ──▶ relay ── link ──▶ holm guest ──▶ holm guest files ── work ──▶ the container
//!    │ ◀───────────────────────── the answer ([`super::work`]) ─────────────────┘   ▲
//!    └──────────────────────────── an archive to be unpacked ───────────────────────┘
//! ```
//!
//! The same turn is taken as for other pods, so that who ends the pod waits for the copying, or breaks it off. A guest that
//! stalls is waited for as long as [`PATIENCE`].

use super::{
    Change, FilesError, Into, Kept, PathStat, io_at,
    place::Asked,
    sieve::{Rule, sift},
    stream::{panicked, run, spawn},
    turn::Turn,
    work::{Hearer, Work, readable},
};
use crate::{
    container::{
        client::Client,
        driver::maintenance::{Resting, Roused},
        protocol::{Reply, Request},
    },
    image::{
        pipe::{Body, Taker, pipe},
        tar::TarError,
    },
};
use model::error::Code;
use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream as Socket},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
};

/// How long a guest may say or take nothing.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long an answer that is no archive may take as a whole: less than who asked for it waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);
/// Bytes that go in at a time.
const COPY_BYTES: usize = 64 << 10;

/// The machine that is asked.
#[derive(Debug)]
pub(in crate::container) enum Machine {
    /// The pod runs in it; this is its run directory.
    Runs(PathBuf),
    /// It is to be started, unless it is up for somebody else.
    Rests(Box<Resting>),
}

/// Opened files of a pod in its machine.
#[derive(Debug)]
pub struct InsideFiles {
    machine: Machine,
    /// How many ids it has.
    ids: u32,
    turn: Turn,
    kept: Option<Kept>,
}

type Answer = Hearer<Taker>;

/// The way into the machine.
#[derive(Debug)]
struct Way {
    input: UnixStream,
    /// Keeps one that was started for this.
    _roused: Option<Roused>,
}

impl InsideFiles {
    /// Of the pod in this machine, that has so many ids.
    pub(in crate::container) fn new(machine: Machine, ids: u32, turn: Turn) -> Self {
        Self { machine, ids, turn, kept: None }
    }

    /// See [`super::OpenFiles::keeping`].
    pub(super) fn keeping(self, kept: Option<Kept>) -> Self {
        Self { kept, ..self }
    }

    /// Asks. Gives where an archive goes in with what keeps the machine up, and where the answer comes out.
    async fn ask(&self, work: Work) -> Result<(Way, Answer), FilesError> {
        let (place, roused) = match &self.machine {
            Machine::Runs(run) => (run.clone(), None),
            // Lists of containers ask for it, and would start the machines of all.
            Machine::Rests(_) if work == Work::Weigh => return Err(FilesError::Asleep),
            Machine::Rests(resting) => {
                let roused = resting.rouse(&self.turn, self.kept.clone()).await?;
                (roused.run.clone(), Some(roused))
            }
        };
        // An archive takes as long as it takes.
        let limit = matches!(work, Work::Stat { .. } | Work::Changes | Work::Weigh).then_some(ANSWER_TIMEOUT);
        let (input, output) = run(move || begin(&place, work)).await?;
        let led = |socket| UnixStream::from_std(socket).map_err(io_at("take a stream of its machine"));
        let output: Body = Box::new(led(output)?);
        let way = Way { input: led(input)?, _roused: roused };
        Ok((way, Hearer::new(Taker::patient(output, self.turn.hurry.clone(), PATIENCE).within(limit))))
    }

    /// What lies at a path.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub async fn look(self, path: String) -> Result<PathStat, FilesError> {
        let asked = Asked::read(&path)?;
        let (_way, mut answer) = self.ask(Work::Stat { path }).await?;
        run(move || {
            let found: PathStat = answer.found()?;
            answer.finish()?;
            Ok(found.believed(&asked))
        })
        .await
    }

    /// Paths that differ from the image's.
    ///
    /// # Errors
    /// More than can be told; what its machine cannot read.
    pub async fn compare(self) -> Result<Vec<Change>, FilesError> {
        let (_way, mut answer) = self.ask(Work::Changes).await?;
        run(move || {
            let changes = Change::read_all(&mut answer);
            settled(&mut answer, changes)
        })
        .await
    }

    /// Bytes of the files that the container wrote, as its machine tells.
    ///
    /// # Errors
    /// What its machine cannot read.
    pub async fn weigh(self) -> Result<u64, FilesError> {
        let (_way, mut answer) = self.ask(Work::Weigh).await?;
        run(move || {
            let bytes: u64 = answer.found()?;
            answer.finish()?;
            // No file system holds more.
            Ok(bytes.min(i64::MAX.unsigned_abs()))
        })
        .await
    }

    /// What lies at a path, as an archive that is made as it is read. Reading fails where packing does.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub async fn send(self, path: String) -> Result<(PathStat, Body), FilesError> {
        let asked = Asked::read(&path)?;
        let rule = Rule { top: Some(asked.name.clone()), ids: self.ids, newest_s: None };
        let (way, mut answer) = self.ask(Work::Pack { path }).await?;
        let (told, found) = oneshot::channel();
        let (body, maker) = pipe(self.turn.hurry.clone());
        spawn(move || {
            // Both stay until the archive has passed.
            let _held = (way, self.turn);
            let found = answer.found::<PathStat>().map(|stat| stat.believed(&asked));
            let is_there = found.is_ok();
            if told.send(found).is_ok() && is_there {
                maker.make(|output| pass(&mut answer, output, &rule));
            }
        })?;
        Ok((found.await.unwrap_or_else(|_| Err(panicked()))?, body))
    }

    /// All its files but those of volumes, as an archive that is made as it is read.
    ///
    /// # Errors
    /// Its machine cannot be asked.
    pub async fn send_all(self) -> Result<Body, FilesError> {
        let rule = Rule { top: None, ids: self.ids, newest_s: None };
        self.send_archive(Work::Export, rule).await
    }

    /// What it changed, as an archive of a layer that is made as it is read. No time in it is later than `newest_s`.
    ///
    /// # Errors
    /// Its machine cannot be asked.
    pub async fn send_layer(self, newest_s: Option<i64>) -> Result<Body, FilesError> {
        let rule = Rule { top: None, ids: self.ids, newest_s };
        self.send_archive(Work::Layer { newest_s }, rule).await
    }

    async fn send_archive(self, work: Work, rule: Rule) -> Result<Body, FilesError> {
        let (way, mut answer) = self.ask(work).await?;
        let (body, maker) = pipe(self.turn.hurry.clone());
        spawn(move || {
            let _held = (way, self.turn);
            maker.make(|output| pass(&mut answer, output, &rule));
        })?;
        Ok(body)
    }

    /// Writes an archive into it.
    ///
    /// # Errors
    /// What is wrong with the place or the archive. What was written before stays.
    pub async fn receive(self, into: Into, body: Body) -> Result<(), FilesError> {
        let hurry = self.turn.hurry.clone();
        let (Way { input, _roused }, mut answer) = self.ask(Work::Unpack { into }).await?;
        let sent = tokio::select! {
            biased;
            () = hurry.cancelled() => Err(FilesError::Moving),
            sent = put_in(body, input) => sent,
        };
        sent?;
        let outcome = run(move || answer.finish()).await;
        // The cause of what was heard.
        if outcome.is_err() && hurry.is_cancelled() { Err(FilesError::Moving) } else { outcome }
    }
}

/// Asks the relay. Gives this end of what goes in and of what comes out.
fn begin(place: &Path, work: Work) -> Result<(Socket, Socket), FilesError> {
    let failed = || io_at("ask its machine");
    let client = Client::connect(place).map_err(failed())?;
    let mut client = client.ok_or(FilesError::Moving)?;
    let (input, far_input) = Socket::pair().map_err(failed())?;
    let (output, far_output) = Socket::pair().map_err(failed())?;
    let ends = [far_input.as_fd(), far_output.as_fd()];
    match client.ask(&Request::Files { work }, &ends) {
        Ok(Reply::Done) => {}
        Ok(Reply::Failed { message, .. }) => {
            return Err(FilesError::Inside { code: Code::Unavailable, message: readable(&message) });
        }
        Ok(_) => return Err(failed()(io::Error::from(io::ErrorKind::InvalidData))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(FilesError::Moving),
        Err(error) => return Err(failed()(error)),
    }
    for socket in [&input, &output] {
        socket.set_nonblocking(true).map_err(failed())?;
    }
    Ok((input, output))
}

/// Passes an archive on, and the guest's complaint in place of what comes of it.
fn pass(answer: &mut Answer, output: impl io::Write, rule: &Rule) -> Result<(), FilesError> {
    let passed = sift(&mut *answer, output, rule);
    settled(answer, passed)
}

/// What came of reading an answer: where the guest complained, or broke off, that is why.
fn settled<T>(answer: &mut Answer, read: Result<T, FilesError>) -> Result<T, FilesError> {
    match read {
        Ok(value) => answer.finish().map(|()| value),
        Err(error) => match answer.broken_off() {
            Some(complaint) => Err(complaint),
            None => Err(error),
        },
    }
}

/// Sends an archive in, as far as it is taken: who stops taking tells why.
async fn put_in(mut body: Body, mut input: UnixStream) -> Result<(), FilesError> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = body.read(&mut buffer).await.map_err(|error| FilesError::Archive(TarError::Io(error)))?;
        if count == 0 {
            let _ = input.shutdown().await;
            return Ok(());
        }
        match tokio::time::timeout(PATIENCE, input.write_all(&buffer[..count])).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(io_at("send to its machine")(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }
}
