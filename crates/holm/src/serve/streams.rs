//! What reaches into guests: the door's line to this node's drivers.

mod build;
mod files;
mod images;
mod login;
mod registry;

use api::streams::{
    Attach, Both, CommitAsked, DiskTraffic, Download, Duplex, Exec, FileChange, FileStat, FilesIn,
    ImageDetails, ImageIn, LogLine, LogWanted, OfferedRoot, Process, Program, PushStep, Reader,
    RegistryLogin, Session, SocketAsked, SourceEntry, SourceFiles, Streams, Traffic, TrafficCount, Upload,
    Usage, Writer,
};
use async_trait::async_trait;
use control::Error;
use model::{
    error::{Code, Fault},
    id::{ImageId, VolumeId},
    image::{Image, ImageContent, Reach},
    image_reference::Reference,
    instance::{Instance, InstanceStatus, Kind, State},
    usage::Peaks,
};
use node::{
    driver::{AttachRequest, Driver, DriverError, ExecHandle, ExecRequest, LogQuery, Place, Stdio},
    image::reconcile::Images,
    instance::{Instances, measure::Meter, sentence},
    network::traffic::Direction,
};
use serde_json::Value;
use std::{os::fd::OwnedFd, sync::Arc};
use store::{Change, Store};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
};

/// Lines of a log on their way to a client.
const LINES_MAX: usize = 256;

/// Streams of the instances on this node.
pub struct NodeStreams {
    instances: Arc<Instances>,
    images: Arc<Images>,
    meter: Arc<Meter>,
    store: Store,
}

impl NodeStreams {
    /// Streams over the node's drivers and images.
    pub fn new(instances: Arc<Instances>, images: Arc<Images>, meter: Arc<Meter>, store: Store) -> Self {
        Self { instances, images, meter, store }
    }

    /// What is told of a container's own program to who joined it.
    fn attached(&self, instance: &Instance, driver: Arc<dyn Driver>, place: Place) -> Arc<dyn Program> {
        let status = self.store.get::<InstanceStatus>(&instance.meta.id.to_string());
        let run = match status.as_ref().map(|status| &status.record) {
            None => (1, 0),
            Some(status) if matches!(status.state, State::Running { .. } | State::Paused { .. }) => {
                run_of(status)
            }
            // It was joined, so it runs: its status tells of the run before.
            Some(status) => (status.boot + 1, 0),
        };
        Arc::new(Attached { name: instance.clone(), driver, store: self.store.clone(), run, _place: place })
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
        error @ DriverError::NotRun { code: 127, .. } => {
            Error::new(Code::NotFound, sentence(&error)).field("argv")
        }
        error @ DriverError::NotRun { code: 126, .. } => {
            Error::new(Code::Forbidden, sentence(&error)).field("argv")
        }
        error @ DriverError::Timeout { .. } => Error::new(Code::Timeout, sentence(&error)),
        DriverError::Files(error) => files::refused(instance, &error),
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

    async fn console_login(&self, instance: &Instance) -> Result<Duplex, Error> {
        let opening = login::open(Arc::clone(self.driver(instance)?), instance.meta.id);
        // A task of its own: with a client that breaks off meanwhile the log in is ended, not left half open.
        let opened = tokio::spawn(opening).await.map_err(|error| local(error.into()))?;
        opened.map(|console| Box::new(console) as Box<dyn Both>).map_err(|e| explain(instance, e))
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
            tied: false,
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

    async fn attach(&self, instance: &Instance, wanted: Attach) -> Result<Session, Error> {
        let driver = Arc::clone(self.driver(instance)?);
        if instance.kind == Kind::Vm {
            let stream = driver.console(instance.meta.id).await.map_err(|e| explain(instance, e))?;
            let (read, write) = stream.into_split();
            let program = self.attached(instance, driver, None);
            let (stdin, stdout) = (Some(Box::new(write) as Writer), Some(Box::new(read) as Reader));
            return Ok(Session { stdin, stdout, stderr: None, program });
        }
        let request = AttachRequest {
            container: wanted.container,
            input: wanted.input,
            keeps_input: wanted.keeps_input,
            waits: wanted.waits,
        };
        let named = request.container.as_deref();
        let spec = instance.containers.iter().find(|c| named.is_none_or(|name| c.name == name));
        let (stdin, stdout, stderr, far);
        if spec.is_some_and(|spec| spec.tty) {
            let (ours, theirs) = stream_pair()?;
            let again = || theirs.try_clone().map_err(local);
            far = [again()?, again()?, theirs];
            let (read, write) = ours.into_split();
            (stdin, stdout, stderr) = (Box::new(write) as Writer, Box::new(read) as Reader, None);
        } else {
            let (input, input_far) = stream_pair()?;
            let (output, output_far) = stream_pair()?;
            let (errors, errors_far) = stream_pair()?;
            far = [input_far, output_far, errors_far];
            (stdin, stdout) = (Box::new(input) as Writer, Box::new(output) as Reader);
            stderr = Some(Box::new(errors) as Reader);
        }
        let place = driver.attach(instance.meta.id, &request, far).await.map_err(|e| explain(instance, e))?;
        let program = self.attached(instance, driver, place);
        Ok(Session { stdin: wanted.input.then_some(stdin), stdout: Some(stdout), stderr, program })
    }

    async fn signal(&self, instance: &Instance, signal: i32) -> Result<(), Error> {
        self.driver(instance)?.signal(instance.meta.id, signal).await.map_err(|e| explain(instance, e))
    }

    async fn resize(&self, instance: &Instance, rows: u16, columns: u16) -> Result<(), Error> {
        let resized = self.driver(instance)?.resize_terminal(instance.meta.id, rows, columns).await;
        resized.map_err(|e| explain(instance, e))
    }

    async fn usage(&self, instance: &Instance) -> Result<Usage, Error> {
        let usage = self.driver(instance)?.usage(instance.meta.id).await.map_err(|e| explain(instance, e))?;
        Ok(Usage {
            cpu_usage_us: usage.cpu_usage_us,
            cpu_throttled_us: usage.cpu_throttled_us,
            memory_bytes: usage.memory_bytes,
            memory_inactive_file_bytes: usage.memory_inactive_file_bytes,
            pids: usage.pids,
        })
    }

    async fn traffic(&self, instance: &Instance) -> Vec<Traffic> {
        let told = |it: Direction| TrafficCount {
            bytes: it.bytes,
            packets: it.packets,
            errors: it.errors,
            dropped: it.dropped,
        };
        let seen = self.instances.traffic(instance).await.into_iter();
        let seen = seen.map(|(interface, it)| Traffic {
            interface,
            received: told(it.received),
            sent: told(it.sent),
        });
        seen.collect()
    }

    async fn disk_traffic(&self, instance: &Instance) -> Option<DiskTraffic> {
        let seen = self.driver(instance).ok()?.disk_traffic(instance.meta.id).await.ok()??;
        Some(DiskTraffic { read_bytes: seen.read_bytes, written_bytes: seen.written_bytes })
    }

    async fn peaks(&self, instance: &Instance) -> Option<Peaks> {
        self.meter.peaks(instance).await
    }

    async fn processes(&self, instance: &Instance) -> Result<Vec<Process>, Error> {
        let seen = self.driver(instance)?.processes(instance.meta.id).await;
        let seen = seen.map_err(|e| explain(instance, e))?.into_iter();
        let told = seen.map(|it| Process {
            pid: it.pid,
            parent: it.parent,
            uid: it.uid,
            started_s: it.started_s,
            cpu_s: it.cpu_s,
            has_terminal: it.terminal != 0,
            argv: it.argv,
        });
        Ok(told.collect())
    }

    async fn file_stat(&self, instance: &Instance, path: &str) -> Result<FileStat, Error> {
        self.stat_file(instance, path).await
    }

    async fn files_out(&self, instance: &Instance, path: &str) -> Result<(FileStat, Reader), Error> {
        self.send_files(instance, path).await
    }

    async fn files_in(&self, instance: &Instance, into: FilesIn, archive: Reader) -> Result<(), Error> {
        self.receive_files(instance, into, archive).await
    }

    async fn file_changes(&self, instance: &Instance) -> Result<Vec<FileChange>, Error> {
        self.compare_files(instance).await
    }

    async fn written_bytes(&self, instance: &Instance) -> Result<u64, Error> {
        self.weigh_files(instance).await
    }

    async fn export(&self, instance: &Instance) -> Result<Reader, Error> {
        self.send_all_files(instance).await
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

    async fn image_details(&self, content: &ImageContent) -> Result<ImageDetails, Error> {
        self.details_of_image(content).await
    }

    async fn images_out(&self, wanted: Vec<(ImageContent, Vec<Reference>)>) -> Result<Reader, Error> {
        self.save_images(wanted).await
    }

    async fn images_in(&self, archive: Reader) -> Result<Vec<ImageIn>, Error> {
        self.load_images(archive).await
    }

    async fn image_of_root(&self, root: Reader, config: Value) -> Result<ImageIn, Error> {
        self.build_image(root, config).await
    }

    async fn commit(
        &self,
        instance: &Instance,
        base: &ImageContent,
        config: Value,
        asked: CommitAsked,
    ) -> Result<ImageIn, Error> {
        self.commit_container(instance, base, config, asked).await
    }

    async fn image_of_config(&self, base: &ImageContent, config: Value) -> Result<ImageIn, Error> {
        self.configure_image(base, config).await
    }

    async fn source_archive(&self, archive: Reader, at: &str) -> Result<Arc<dyn SourceFiles>, Error> {
        self.keep_archive(archive, at).await
    }

    async fn source_listed(
        &self,
        entries: Vec<SourceEntry>,
        contents: Reader,
    ) -> Result<Arc<dyn SourceFiles>, Error> {
        self.keep_listed(entries, contents).await
    }

    async fn source_file(&self, name: &str, content: Vec<u8>) -> Result<Arc<dyn SourceFiles>, Error> {
        self.keep_file(name, content).await
    }

    async fn source_web(&self, url: &str, name: &str) -> Result<Arc<dyn SourceFiles>, Error> {
        self.fetch_file(url, name).await
    }

    async fn volume_socket(&self, volume: VolumeId, asked: SocketAsked) -> Result<UnixListener, Error> {
        self.listen_in(volume, asked).await
    }

    async fn registry_login(&self, registry: &str, login: RegistryLogin, reach: Reach) -> Result<(), Error> {
        self.ask_registry(registry, login, reach).await
    }

    fn lend_login(&self, image: ImageId, login: RegistryLogin) -> Result<(), Error> {
        self.lend(image, login)
    }

    fn take_login_back(&self, image: ImageId) {
        self.images.take_back(image);
    }

    async fn push(
        &self,
        content: &ImageContent,
        reference: &Reference,
        login: Option<RegistryLogin>,
        reach: Reach,
    ) -> Result<mpsc::Receiver<PushStep>, Error> {
        self.push_image(content, reference, login, reach).await
    }

    async fn offer_root(&self, image: &Image, metadata: String) -> Result<OfferedRoot, Error> {
        self.offer_image(image, metadata).await
    }

    async fn download(&self, image: &Image, offset: u64) -> Result<Download, Error> {
        let download = self.images.download(image, offset).await.map_err(refused)?;
        Ok(Download { size_bytes: download.size_bytes, body: download.body })
    }
}

/// Which run of an instance it is: its boot, and how often its container was started again in that boot.
fn run_of(status: &InstanceStatus) -> (u64, u64) {
    let restarts = status.facts.get("containers").and_then(|all| all.get(0)?.get("restarts")?.as_u64());
    (status.boot, restarts.unwrap_or(0))
}

/// A container's own program. Its end ends its streams; how it ended is in the instance's status.
struct Attached {
    name: Instance,
    driver: Arc<dyn Driver>,
    store: Store,
    run: (u64, u64),
    /// Given back when the client goes before the program runs.
    _place: Place,
}

impl Attached {
    /// The exit code of the run that was joined, once it has ended.
    fn ended(&self, status: &InstanceStatus) -> Option<i32> {
        let last = || {
            let code = status.facts.get("containers")?.get(0)?.get("exit_code")?.as_i64()?;
            i32::try_from(code).ok()
        };
        match &status.state {
            State::Stopped { code, .. } if status.boot >= self.run.0 => Some(code.unwrap_or(255)),
            _ if run_of(status) > self.run => Some(last().unwrap_or(255)),
            _ => None,
        }
    }
}

#[async_trait]
impl Program for Attached {
    async fn wait(&self) -> Result<i32, Error> {
        let key = self.name.meta.id.to_string();
        let mut changes = self.store.subscribe();
        loop {
            if let Some(status) = self.store.get::<InstanceStatus>(&key) {
                if let Some(code) = self.ended(&status.record) {
                    return Ok(code);
                }
            } else if self.store.get::<Instance>(&key).is_none() {
                return Err(Error::new(Code::NotFound, format!("{} is gone", self.name.meta.name)));
            }
            loop {
                match changes.next().await {
                    Some(Change::Record { key: changed, .. }) if *changed != *key => {}
                    Some(_) => break,
                    None => return std::future::pending().await,
                }
            }
        }
    }
    async fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        let resized = self.driver.resize_terminal(self.name.meta.id, rows, columns).await;
        resized.map_err(|e| explain(&self.name, e))
    }
    async fn signal(&self, signal: i32) -> Result<(), Error> {
        self.driver.signal(self.name.meta.id, signal).await.map_err(|e| explain(&self.name, e))
    }
}
