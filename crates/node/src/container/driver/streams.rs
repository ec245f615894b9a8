//! Streams of a pod: logs, the console, and programs beside its containers' own.

use super::{PodDriver, answer, blocking, connect, io_error, read_json};
use crate::{
    container::{
        bundle::{Container, Pod},
        log::LogReader,
        protocol::{Exec, POD, Reply, Request},
        secret,
    },
    driver::{DriverError, ExecHandle, ExecRequest, LogLine, LogQuery, Stdio, Stream},
};
use async_trait::async_trait;
use model::id::InstanceId;
use std::{
    collections::VecDeque,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    sync::{Mutex, mpsc, watch},
};

/// Lines that wait for a slow reader; then reading the file waits.
const LINES_MAX: usize = 256;
/// Between two looks at a log that is followed: the first time after a silence, at most, and while something comes all the
/// time. What was started just now often ends at once.
const FOLLOW_POLL_FIRST: Duration = Duration::from_millis(2);
const FOLLOW_POLL_LONGEST: Duration = Duration::from_millis(100);
const FOLLOW_POLL_BUSY: Duration = Duration::from_millis(10);
/// Most lines of a log's end that can be asked for.
const TAIL_LINES_MAX: usize = 1_000_000;

impl PodDriver {
    /// The container that is named, or the first.
    async fn container(&self, id: InstanceId, name: Option<String>) -> Result<Container, DriverError> {
        let places = self.places(id);
        blocking(move || {
            let mut pod: Pod = read_json(&places.state.join(POD)).ok_or(DriverError::NotRunning)?;
            secret::put_back(&mut pod).map_err(io_error("read the secret variables"))?;
            let mut containers = pod.containers.into_iter();
            let found = match &name {
                None => containers.next(),
                Some(name) => containers.find(|container| container.name == *name),
            };
            found.ok_or_else(|| DriverError::Unsupported {
                what: format!("the pod has no container {:?}", name.unwrap_or_default()),
                hint: "name one of its containers".into(),
            })
        })
        .await
    }

    pub(super) async fn log_tail(&self, id: InstanceId, bytes_max: usize) -> Result<Vec<u8>, DriverError> {
        let container = self.container(id, None).await?;
        blocking(move || {
            let mut reader = LogReader::open(&container.log, container.log_limits.files_max);
            let mut tail: VecDeque<u8> = VecDeque::new();
            loop {
                let lines = reader.read().map_err(io_error("read the log"))?;
                if lines.is_empty() {
                    return Ok(tail.into());
                }
                tail.extend(lines.into_iter().flat_map(|line| line.bytes));
                tail.drain(..tail.len().saturating_sub(bytes_max));
            }
        })
        .await
    }

    pub(super) async fn read_log(
        &self,
        id: InstanceId,
        query: &LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>, DriverError> {
        let container = self.container(id, query.container.clone()).await?;
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        let (query, run) = (query.clone(), self.places(id).run);
        // Ends with the log, or when the receiver is dropped.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = send_log(&container, &query, &run, &sender) {
                tracing::debug!(%id, %error, "reading a log ended");
            }
        });
        Ok(receiver)
    }

    /// A two-way stream to the first container: its terminal, or its input and output.
    pub(super) async fn attach_terminal(&self, id: InstanceId) -> Result<Stream, DriverError> {
        let places = self.places(id);
        let near = blocking(move || {
            let pod: Option<Pod> = read_json(&places.state.join(POD));
            let (near, far) =
                std::os::unix::net::UnixStream::pair().map_err(io_error("make a socket pair"))?;
            let far = OwnedFd::from(far);
            let mut client = connect(&places.run)?;
            let ends = [far.as_fd(), far.as_fd(), far.as_fd()];
            // The console of a system outlives who looks at it.
            let keeps_input = pod.is_some_and(|pod| pod.is_system());
            let attach = Request::Attach { container: None, input: true, keeps_input };
            answer(client.ask(&attach, &ends))?;
            near.set_nonblocking(true).map_err(io_error("set up the stream"))?;
            Ok(near)
        })
        .await?;
        Stream::from_std(near).map_err(io_error("set up the stream"))
    }

    pub(super) async fn run_beside(
        &self,
        id: InstanceId,
        request: &ExecRequest,
        stdio: Stdio,
    ) -> Result<Box<dyn ExecHandle>, DriverError> {
        let run = self.places(id).run;
        let exec = Exec {
            container: request.container.clone(),
            argv: request.argv.clone(),
            env: request.env.clone(),
            cwd: request.cwd.as_ref().map(Into::into),
            user: request.user.clone(),
            tty: request.tty,
            size: request.size,
            tied: request.tied,
        };
        let (started, stdio) = blocking(move || Ok((start_exec(&run, exec, &stdio)?, stdio))).await?;
        if let Some(terminal) = started.terminal {
            super::super::terminal::join(terminal, stdio).map_err(io_error("connect the terminal"))?;
        }
        let stream = Stream::from_std(started.stream).map_err(io_error("wait for the program"))?;
        Ok(Box::new(RunningExec::new(stream, started.read)))
    }
}

fn send_log(
    container: &Container,
    query: &LogQuery,
    run: &Path,
    sender: &mpsc::Sender<LogLine>,
) -> io::Result<()> {
    let mut reader = LogReader::open(&container.log, container.log_limits.files_max);
    let wanted =
        |line: &LogLine| query.since_ms.is_none_or(|since| line.time_ns >= since.saturating_mul(1_000_000));
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    if let Some(count) = query.tail_lines {
        let count = count.min(TAIL_LINES_MAX);
        let mut tail = VecDeque::new();
        loop {
            let lines = reader.read()?;
            if lines.is_empty() {
                break;
            }
            tail.extend(lines.into_iter().filter(&wanted));
            tail.drain(..tail.len().saturating_sub(count));
        }
        tail.into_iter().try_for_each(|line| sender.blocking_send(line).map_err(gone))?;
    }
    let mut pause = FOLLOW_POLL_FIRST;
    // What comes after a silence is followed closely for a moment; of who talks on and on, the lines come together.
    loop {
        // Looked at before reading, so that nothing written before the end is missed.
        let ended = !query.follow || has_ended(run, &container.name);
        loop {
            let lines = reader.read()?;
            if lines.is_empty() {
                break;
            }
            pause =
                if pause == FOLLOW_POLL_LONGEST { FOLLOW_POLL_FIRST } else { pause.min(FOLLOW_POLL_BUSY) };
            lines
                .into_iter()
                .filter(&wanted)
                .try_for_each(|line| sender.blocking_send(line).map_err(gone))?;
        }
        if ended || sender.is_closed() {
            return Ok(());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(FOLLOW_POLL_LONGEST);
    }
}

/// Whether a container has ended for good, by what its shim wrote.
fn has_ended(run: &Path, container: &str) -> bool {
    use crate::container::protocol::{PodState, SOCKET, STATE, Status};
    let Some(state) = read_json::<PodState>(&run.join(STATE)) else {
        return true;
    };
    let ended =
        state.containers.iter().find(|it| it.name == container).is_none_or(|it| it.status == Status::Exited);
    ended || !run.join(SOCKET).exists() && fs::metadata(run.join(STATE)).is_ok()
}

/// A program that was just started.
struct StartedExec {
    /// The connection that will tell its end.
    stream: std::os::unix::net::UnixStream,
    /// What was read of it already: the end of a quick program comes together with the answer.
    read: Vec<u8>,
    terminal: Option<OwnedFd>,
}

fn start_exec(run: &Path, exec: Exec, stdio: &Stdio) -> Result<StartedExec, DriverError> {
    let null =
        fs::File::options().read(true).write(true).open("/dev/null").map_err(io_error("open /dev/null"))?;
    let null = OwnedFd::from(null);
    let ends = [&stdio.stdin, &stdio.stdout, &stdio.stderr].map(|end| end.as_ref().unwrap_or(&null).as_fd());
    let ends: &[_] = if exec.tty { &[] } else { &ends };
    let mut client = connect(run)?;
    match client.ask(&Request::Exec(exec), ends) {
        Ok(Reply::Executing { .. }) => {}
        Ok(Reply::Failed { code, message }) => {
            return Err(DriverError::NotRun { code, answer: message });
        }
        other => return Err(answer(other).err().unwrap_or(DriverError::NotRunning)),
    }
    let terminal = client.take_descriptor();
    let (stream, read) = client.into_parts();
    stream.set_nonblocking(true).map_err(io_error("wait for the program"))?;
    Ok(StartedExec { stream, read, terminal })
}

/// A program beside a container's own; its connection to the shim tells the end.
struct RunningExec {
    writing: Mutex<tokio::net::unix::OwnedWriteHalf>,
    ended: watch::Receiver<Option<Result<i32, String>>>,
}

impl RunningExec {
    fn new(stream: Stream, read: Vec<u8>) -> Self {
        let (reading, writing) = stream.into_split();
        let reading = io::Cursor::new(read).chain(reading);
        let (sender, ended) = watch::channel(None);
        // Ends with the program or the shim.
        tokio::spawn(async move {
            let mut lines = tokio::io::BufReader::new(reading).lines();
            let mut result = Err("the shim ended".to_string());
            while let Ok(Some(line)) = lines.next_line().await {
                // Answers to resizing and signals are of no interest; the end is.
                if let Ok(Reply::Exited { code }) = serde_json::from_str(&line) {
                    result = Ok(code);
                    break;
                }
            }
            let _ = sender.send(Some(result));
        });
        Self { writing: Mutex::new(writing), ended }
    }

    async fn send(&self, request: &Request) -> Result<(), DriverError> {
        let mut line = serde_json::to_vec(request).map_err(|error| io_error("ask the shim")(error.into()))?;
        line.push(b'\n');
        self.writing.lock().await.write_all(&line).await.map_err(io_error("ask the shim"))
    }
}

#[async_trait]
impl ExecHandle for RunningExec {
    async fn wait(&self) -> Result<i32, DriverError> {
        let mut ended = self.ended.clone();
        let result = ended.wait_for(Option::is_some).await.map_err(|_| DriverError::NotRunning)?;
        match result.as_ref() {
            Some(Ok(code)) => Ok(*code),
            Some(Err(answer)) => {
                Err(DriverError::Refused { operation: "wait for the program".into(), answer: answer.clone() })
            }
            None => Err(DriverError::NotRunning),
        }
    }

    async fn resize(&self, rows: u16, columns: u16) -> Result<(), DriverError> {
        self.send(&Request::Resize { container: None, rows, columns }).await
    }

    async fn signal(&self, signal: i32) -> Result<(), DriverError> {
        self.send(&Request::Signal { signal }).await
    }
}
