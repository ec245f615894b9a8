//! What reaches into guests: the door's line to this node's drivers.

use api::streams::{
    Both, Download, Duplex, Exec, LogLine, LogWanted, Program, Reader, Session, Streams, Upload, Writer,
};
use async_trait::async_trait;
use control::Error;
use model::{
    error::{Code, Fault},
    image::Image,
    instance::Instance,
};
use node::{
    driver::{Driver, DriverError, ExecHandle, ExecRequest, LogQuery, Stdio},
    image::reconcile::Images,
    instance::{Instances, sentence},
};
use std::{os::fd::OwnedFd, sync::Arc};
use tokio::{net::UnixStream, sync::mpsc};

/// Lines of a log on their way to a client.
const LINES_MAX: usize = 256;

/// Streams of the instances on this node.
pub struct NodeStreams {
    instances: Arc<Instances>,
    images: Arc<Images>,
}

impl NodeStreams {
    /// Streams over the node's drivers and images.
    pub fn new(instances: Arc<Instances>, images: Arc<Images>) -> Self {
        Self { instances, images }
    }

    fn driver(&self, instance: &Instance) -> Result<&Arc<dyn Driver>, Error> {
        self.instances.driver(instance.kind).map_err(|e| explain(instance, e))
    }
}

fn explain(instance: &Instance, error: DriverError) -> Error {
    let name = &instance.meta.name;
    match error {
        DriverError::NotRunning => Error::new(Code::Conflict, format!("{name} is not running"))
            .hint(format!("`holm start {name}`, and `holm info {name}` tells how it ended")),
        DriverError::Missing { what, hint } => {
            Error::new(Code::Unavailable, format!("{what} is missing")).hint(hint)
        }
        DriverError::Unsupported { what, hint } => Error::new(Code::Unsupported, what).hint(hint),
        error @ DriverError::Timeout { .. } => Error::new(Code::Timeout, sentence(&error)),
        error => Error::new(Code::Internal, sentence(&error)),
    }
}

fn refused(fault: Fault) -> Error {
    Error::new(fault.code, fault.message).hint(fault.hint)
}

fn local(error: std::io::Error) -> Error {
    Error::new(Code::Internal, format!("a stream could not be made: {error}"))
}

/// One end for us, the other as a descriptor for the program.
fn stream_pair() -> Result<(UnixStream, OwnedFd), Error> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(local)?;
    ours.set_nonblocking(true).map_err(local)?;
    Ok((UnixStream::from_std(ours).map_err(local)?, OwnedFd::from(theirs)))
}

/// As [`stream_pair`], with the program's end put in its place.
fn lend(place: &mut Option<OwnedFd>) -> Result<UnixStream, Error> {
    let (ours, theirs) = stream_pair()?;
    *place = Some(theirs);
    Ok(ours)
}

struct Running {
    name: Instance,
    handle: Box<dyn ExecHandle>,
}

#[async_trait]
impl Program for Running {
    async fn wait(&self) -> Result<i32, Error> {
        self.handle.wait().await.map_err(|e| explain(&self.name, e))
    }
    async fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        self.handle.resize(rows, columns).await.map_err(|e| explain(&self.name, e))
    }
    async fn signal(&self, signal: i32) -> Result<(), Error> {
        self.handle.signal(signal).await.map_err(|e| explain(&self.name, e))
    }
    async fn abandon(&self) {
        const SIGHUP: i32 = 1;
        if let Err(error) = self.handle.signal(SIGHUP).await {
            tracing::debug!(%error, "an abandoned program could not be told");
        }
    }
}

#[async_trait]
impl Streams for NodeStreams {
    async fn console(&self, instance: &Instance) -> Result<Duplex, Error> {
        let stream = self.driver(instance)?.console(instance.meta.id).await;
        stream.map(|s| Box::new(s) as Box<dyn Both>).map_err(|e| explain(instance, e))
    }

    async fn vnc(&self, instance: &Instance) -> Result<Duplex, Error> {
        let stream = self.driver(instance)?.vnc(instance.meta.id).await;
        stream.map(|s| Box::new(s) as Box<dyn Both>).map_err(|e| explain(instance, e))
    }

    async fn exec(&self, instance: &Instance, exec: Exec) -> Result<Session, Error> {
        let request = ExecRequest {
            container: exec.container,
            argv: exec.argv,
            env: exec.env,
            cwd: exec.cwd,
            user: exec.user,
            tty: exec.tty,
            size: exec.size,
        };
        let driver = self.driver(instance)?;
        let mut stdio = Stdio { stdin: None, stdout: None, stderr: None };
        let (stdin, stdout, stderr);
        if request.tty {
            let (ours, theirs) = stream_pair()?;
            stdio.stdin = Some(theirs);
            let (read, write) = ours.into_split();
            stdout = Some(Box::new(read) as Reader);
            stdin = exec.stdin.then(|| Box::new(write) as Writer);
            stderr = None;
        } else {
            stdin = match exec.stdin {
                true => Some(Box::new(lend(&mut stdio.stdin)?) as Writer),
                false => None,
            };
            stdout = Some(Box::new(lend(&mut stdio.stdout)?) as Reader);
            stderr = Some(Box::new(lend(&mut stdio.stderr)?) as Reader);
        }
        let handle =
            driver.exec(instance.meta.id, &request, stdio).await.map_err(|e| explain(instance, e))?;
        Ok(Session { stdin, stdout, stderr, program: Arc::new(Running { name: instance.clone(), handle }) })
    }

    async fn attach(&self, instance: &Instance, container: Option<String>) -> Result<Session, Error> {
        let _ = container;
        let stream =
            self.driver(instance)?.console(instance.meta.id).await.map_err(|e| explain(instance, e))?;
        let (read, write) = stream.into_split();
        Ok(Session {
            stdin: Some(Box::new(write)),
            stdout: Some(Box::new(read)),
            stderr: None,
            program: Arc::new(Attached),
        })
    }

    async fn logs(&self, instance: &Instance, wanted: LogWanted) -> Result<mpsc::Receiver<LogLine>, Error> {
        let query = LogQuery {
            container: wanted.container,
            tail_lines: wanted.tail_lines,
            since_ms: wanted.since_ms,
            follow: wanted.follow,
        };
        let driver = self.driver(instance)?;
        let mut lines = driver.logs(instance.meta.id, &query).await.map_err(|e| explain(instance, e))?;
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                let line = LogLine { time_ns: line.time_ns, is_stderr: line.stream == 2, bytes: line.bytes };
                if sender.send(line).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    async fn console_log(&self, instance: &Instance, bytes_max: usize) -> Result<Vec<u8>, Error> {
        let log = self.driver(instance)?.console_log(instance.meta.id, bytes_max).await;
        log.map_err(|e| explain(instance, e))
    }

    async fn upload(&self, image: &Image, upload: Upload) -> Result<(), Error> {
        let taken = self.images.take_upload(image, upload.body, upload.size_bytes).await;
        taken.map_err(refused)
    }

    async fn stage(&self, image: &Image, upload: Upload) -> Result<(), Error> {
        self.images.take_staged(image, upload.body, upload.size_bytes).await.map_err(refused)
    }

    async fn download(&self, image: &Image, offset: u64) -> Result<Download, Error> {
        let download = self.images.download(image, offset).await.map_err(refused)?;
        Ok(Download { size_bytes: download.size_bytes, body: download.body })
    }
}

/// A container's own program: its end ends the stream, which is all that an attached client needs.
struct Attached;

#[async_trait]
impl Program for Attached {
    async fn wait(&self) -> Result<i32, Error> {
        std::future::pending().await
    }
    async fn resize(&self, _rows: u16, _columns: u16) -> Result<(), Error> {
        Ok(())
    }
    async fn signal(&self, _signal: i32) -> Result<(), Error> {
        Ok(())
    }
}
