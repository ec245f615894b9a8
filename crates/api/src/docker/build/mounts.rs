//! What a program of `RUN` finds beside the files of its stage (`--mount`). None of it is a part of the layer.
//!
//! ```text
//!   cache    a volume of the project, which one step at a time has; it stays
//!   bind     a small file as it is; a directory as a volume of the step, which goes with it
//!   tmpfs    memory
//!   secret   asked of the client's session, sealed in the step's record, in memory in its container
//!   ssh      a socket in a volume of the step, answered by the client's agent (`agent`)
//! ```

use super::{
    agent::{Agent, Lent},
    builder::{Builder, Fault},
    stage::{Base, StageWork},
};
use crate::{
    docker::watch::{self, Touches},
    error::{Failure, Result},
    streams::{FilesIn, Owner, Pick, Picked, Target},
};
use control::{
    instance::{DiskAsked, FileAsked, FileSetAsked, NicAsked, SecretEnv, VolumeAsked},
    volume::{Attach, NewVolume},
};
use model::{
    dockerfile::instruction::{Copy, Mount, Source},
    error::Code,
    id::VolumeId,
    instance::{
        ContainerSpec, Instance,
        content::{self, SEALED_BYTES_MAX, Shows},
        tag::Tag,
    },
    meta::Labels,
    volume::Volume,
};
use sha2::{Digest, Sha256};
use std::{io::Cursor, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Label of the volumes that are caches; its value is what builds call it.
pub const CACHE_LABEL: &str = "holm.build.cache";
/// Size of a cache in GiB: space is taken as it is written.
const CACHE_GIB: u64 = 10;
/// How long a step waits for a cache that another has.
const CACHE_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long the node may take to make a directory.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for the container that had a cache to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(120);
/// Times that a step tries to have a cache that others want as well.
const TRIES_MAX: usize = 20;

/// What a step's container has beside the files of its stage.
#[derive(Clone, Default)]
pub struct Extra {
    /// Directories.
    pub volumes: Vec<VolumeAsked>,
    /// Files.
    pub files: Vec<FileSetAsked>,
    /// Where they are.
    pub shown: Vec<content::Mount>,
    /// Variables.
    pub secret_env: SecretEnv,
    /// Directories in memory.
    pub tmpfs: Vec<String>,
    /// SSH agents of the client.
    pub agents: Vec<Agent>,
    /// Digests of what is taken from elsewhere.
    pub digests: Vec<String>,
    /// Names of the volumes that are caches.
    caches: Vec<String>,
    /// What directories begin with, by their number.
    fills: Vec<(usize, Fill)>,
}

#[derive(Clone)]
enum Fill {
    /// With these files.
    Files(Arc<dyn Picked>),
    /// Empty, with these permissions, this owner and this group.
    Made((u32, u32, u32)),
}

impl Builder {
    /// Gathers what a step's program finds of other files: what the key of the step depends on.
    pub(super) async fn bound(
        &self,
        work: &StageWork<'_>,
        mounts: &[Mount],
    ) -> std::result::Result<Extra, Fault> {
        let mut extra = Extra::default();
        for mount in mounts {
            if let Mount::Bind { from, source, target } = mount {
                self.bind(work, &mut extra, from.as_ref(), source, target).await?;
            }
        }
        Ok(extra)
    }

    /// Adds what else it finds, once it is known that it runs.
    pub(super) async fn lent(&self, mut extra: Extra, mounts: &[Mount]) -> Result<Extra> {
        for mount in mounts {
            match mount {
                Mount::Bind { .. } => {}
                Mount::Tmpfs { target } => extra.tmpfs.push(target.clone()),
                Mount::Secret { id, target, variable, is_required, mode } => {
                    let Some(bytes) = self.secret(id, *is_required).await? else { continue };
                    if let Some(variable) = variable {
                        let text = String::from_utf8(bytes.clone()).map_err(|_| {
                            let message = format!("secret {id:.100} is no text: it fits no variable");
                            Failure::new(Code::Invalid, message)
                        })?;
                        extra.secret_env.0.insert(variable.clone(), text);
                    }
                    if let Some(target) = target {
                        extra.show(target, *mode, bytes)?;
                    }
                }
                Mount::Cache { id, target, made, is_read_only } => {
                    self.cache(&mut extra, id, target, *made, *is_read_only).await?;
                }
                Mount::Ssh { id, target, is_required, made } => {
                    self.lend_agent(&mut extra, id, target, *is_required, *made).await?;
                }
            }
        }
        Ok(extra)
    }

    async fn secret(&self, id: &str, is_required: bool) -> Result<Option<Vec<u8>>> {
        let secret = match &self.session {
            Some(session) => self.unless_cut(session.secret(id)).await?,
            None => None,
        };
        if secret.is_none() && is_required {
            let message = format!("secret {id:.100}: not found");
            return Err(Failure::new(Code::NotFound, message).hint("give it by --secret id=…,src=FILE"));
        }
        if secret.as_ref().is_some_and(|bytes| bytes.len() > SEALED_BYTES_MAX) {
            let message = format!("secret {id:.100} has more than {SEALED_BYTES_MAX} bytes");
            return Err(Failure::new(Code::TooLarge, message));
        }
        Ok(secret)
    }

    async fn cache(
        &self,
        extra: &mut Extra,
        id: &str,
        target: &str,
        made: (u32, u32, u32),
        read_only: bool,
    ) -> Result<()> {
        let hex: String = Sha256::digest(id).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let name = format!("build-cache-{hex}");
        if self.volume(&name).is_none() {
            let labels = Labels::from([(CACHE_LABEL.to_string(), id.chars().take(60).collect())]);
            let new = NewVolume {
                name: name.clone(),
                description: "a cache of builds".into(),
                size_gib: Some(CACHE_GIB),
                labels,
                ..NewVolume::default()
            };
            match self.door.control().create_volume(&self.caller, new).await {
                Ok(_) if made != (0o755, 0, 0) => extra.fills.push((extra.volumes.len(), Fill::Made(made))),
                Ok(_) => {}
                // Another build was faster.
                Err(error) if error.code == Code::Taken => {}
                Err(error) => return Err(error.into()),
            }
        }
        let attach = Attach { mount_path: Some(target.into()), read_only, ..Attach::default() };
        extra.volumes.push(VolumeAsked { disk: DiskAsked::Volume(name.clone()), attach });
        extra.caches.push(name);
        Ok(())
    }

    fn volume(&self, name: &str) -> Option<Volume> {
        let found = self.door.control().named::<Volume>(&self.caller, name).into_iter().next();
        found.map(|found| found.record.clone())
    }

    async fn bind(
        &self,
        work: &StageWork<'_>,
        extra: &mut Extra,
        from: Option<&String>,
        source: &str,
        target: &str,
    ) -> std::result::Result<(), Fault> {
        let copy = Copy {
            is_add: false,
            sources: vec![],
            target: target.into(),
            from: from.cloned(),
            chown: None,
            chmod: None,
            checksum: None,
        };
        let (files, pattern) = self.files_of(work, &copy, &Source::Path(source.into())).await?;
        let owner = if from.is_some() { Owner::Kept } else { Owner::Root };
        let pick = Pick { pattern: pattern.clone(), owner, ..Pick::default() };
        let picked = files.pick(pick).await.map_err(Failure::from)?;
        extra.digests.push(picked.digest());
        let content = files.read(&pattern, SEALED_BYTES_MAX as u64).await.map_err(|error| {
            let message = format!("--mount=type=bind,source={source:.200}: {}", error.message);
            Failure::new(error.code, message).hint("COPY a large file, or mount the directory that it is in")
        })?;
        match content {
            Some(bytes) => extra.show(target, 0o755, bytes)?,
            None => {
                extra.fills.push((extra.volumes.len(), Fill::Files(picked)));
                let new = NewVolume { size_gib: Some(CACHE_GIB), ..NewVolume::default() };
                let attach = Attach {
                    mount_path: Some(target.into()),
                    delete_with_instance: Some(true),
                    ..Attach::default()
                };
                extra.volumes.push(VolumeAsked { disk: DiskAsked::New(new), attach });
            }
        }
        Ok(())
    }

    /// Waits for the caches, makes the container, fills its directories, and lends it the client's agents for as long as what
    /// comes with it is kept.
    pub(super) async fn enter_with(
        &self,
        base: &Base,
        spec: ContainerSpec,
        nics: Option<Vec<NicAsked>>,
        extra: &Extra,
    ) -> Result<(Instance, Lent)> {
        let mut tries = 0;
        let room = loop {
            for name in &extra.caches {
                self.unless_cut(self.until_free(name)).await?;
            }
            match self.make_room(base, spec.clone(), nics.clone(), extra).await {
                // Another step had it first.
                Err(failure)
                    if failure.error.code == Code::Conflict
                        && !extra.caches.is_empty()
                        && tries < TRIES_MAX =>
                {
                    tries += 1;
                }
                entered => break entered?,
            }
        };
        match self.unless_cut(self.fill_all(&room, extra)).await {
            Ok(lent) => Ok((room, lent)),
            Err(failure) => {
                self.leave(room.meta.id).await;
                Err(failure)
            }
        }
    }

    /// Waits until nobody has a cache.
    async fn until_free(&self, name: &str) -> Result<()> {
        let deadline = Instant::now() + CACHE_TIMEOUT;
        let Some(volume) = self.volume(name) else { return Ok(()) };
        let mut touches = Touches::of(&self.door, volume.meta.id.to_string());
        while self.volume(name).is_some_and(|volume| volume.attached_to.is_some()) {
            if !touches.next(deadline).await {
                return Err(Failure::new(Code::Timeout, format!("another build has the cache {name}")));
            }
        }
        Ok(())
    }

    /// Files get in when all directories of the container are there, those that begin empty too. Sockets are made first: to look
    /// into the container is to mount what it will find.
    async fn fill_all(&self, room: &Instance, extra: &Extra) -> Result<Lent> {
        if extra.fills.is_empty() && extra.agents.is_empty() {
            return Ok(Lent::default());
        }
        let deadline = Instant::now() + READY_TIMEOUT;
        for id in &room.volumes {
            self.until_made(*id, deadline).await?;
        }
        let lent = self.open_agents(room, extra).await?;
        for (number, fill) in &extra.fills {
            let asked = extra.volumes.get(*number).and_then(|asked| asked.attach.mount_path.as_deref());
            self.fill(room, asked.unwrap_or_default(), fill).await?;
        }
        Ok(lent)
    }

    /// Waits until a volume is a directory: of a container it is one, and of nobody a disk.
    async fn until_made(&self, id: VolumeId, deadline: Instant) -> Result<()> {
        let mut touches = Touches::of(&self.door, id.to_string());
        let is_made = || {
            let status = self.door.control().volume_status(id);
            status.is_some_and(|s| s.record.path.as_ref().is_some_and(|path| path.contains(".dir/")))
        };
        while !is_made() {
            if !touches.next(deadline).await {
                let message = format!("a directory was not ready within {} s", READY_TIMEOUT.as_secs());
                return Err(Failure::new(Code::Timeout, message));
            }
        }
        Ok(())
    }

    async fn fill(&self, room: &Instance, target: &str, fill: &Fill) -> Result<()> {
        let (into, archive): (_, crate::streams::Reader) = match fill {
            Fill::Files(picked) => {
                let root =
                    Target { path: "/".into(), is_directory: true, is_last: true, ..Target::default() };
                (target, picked.send(root))
            }
            Fill::Made(made) => ("/", Box::new(Cursor::new(directory(target, *made)))),
        };
        let into = FilesIn { path: into.into(), keeps_kinds: true, as_user: false };
        Ok(self.door.app().streams().files_in(room, into, archive).await?)
    }

    /// Waits until a container is gone that had a cache, so that the next step can have it.
    pub(super) async fn until_gone(&self, extra: &Extra, room: &Instance) {
        if !extra.caches.is_empty() {
            let gone = |sight: &watch::Sight| sight.instance.is_none().then_some(());
            watch::until(&self.door, room.meta.id, Some(GONE_TIMEOUT), gone).await;
        }
    }
}

impl Extra {
    /// A file that is shown at a path.
    fn show(&mut self, target: &str, mode: u32, bytes: Vec<u8>) -> Result<()> {
        let name = format!("mount-{}", self.files.len());
        let name: Tag = name.parse().map_err(|_| Failure::new(Code::Internal, "a tag is none"))?;
        let file = FileAsked { path: "file".into(), mode: mode & 0o777, bytes };
        self.files.push(FileSetAsked { name: name.clone(), files: vec![file] });
        self.shown.push(content::Mount {
            shows: Shows::Files(name),
            path: target.into(),
            sub_path: Some("file".into()),
            group: None,
            read_only: true,
        });
        Ok(())
    }
}

/// An archive with one directory (ustar, POSIX.1).
fn directory(path: &str, (mode, uid, gid): (u32, u32, u32)) -> Vec<u8> {
    let mut archive = vec![0; 3 * 512];
    let mut put = |at: usize, text: &str| archive[at..at + text.len()].copy_from_slice(text.as_bytes());
    let name = path.trim_matches('/');
    // A longer one has no place, and keeps the usual permissions.
    put(0, if name.len() < 100 { name } else { "" });
    put(100, &format!("{mode:07o}"));
    put(108, &format!("{uid:07o}"));
    put(116, &format!("{gid:07o}"));
    put(124, "00000000000");
    put(136, "00000000000");
    put(148, "        ");
    put(156, "5");
    put(257, "ustar\u{0}00");
    let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
    archive[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    archive
}
