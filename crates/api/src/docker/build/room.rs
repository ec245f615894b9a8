//! Containers of steps: the same as any other of the project, made for one step and removed behind it.

use super::{builder::Builder, mounts::Extra, stage::Base, tell::Output};
use crate::{
    docker::{container, watch},
    error::{Failure, Result},
    streams::{Attach, Reader},
};
use control::instance::{ContainerAsked, NewInstance, NicAsked};
use model::{
    error::Code,
    id::InstanceId,
    instance::{Access, ContainerSpec, Instance, Kind, isolation::Isolation},
    meta::Labels,
    plan::{Accelerator, RestartPolicy},
};
use std::{collections::BTreeSet, time::Duration};
use tokio::io::AsyncReadExt;

/// Longest wait for a container to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of output told at a time.
const OUTPUT_BYTES: usize = 8 << 10;

/// How the program of a step ended.
pub enum Ended {
    /// With this code.
    With(i32),
    /// The client went before.
    Cut,
}

/// So often in a row a step is refused while no other has a container, before that is told.
const REFUSED_ALONE_MAX: u32 = 3;

impl Builder {
    /// Makes a container on what a stage is so far. It does not run yet.
    pub(super) async fn enter(
        &self,
        base: &Base,
        spec: ContainerSpec,
        nics: Option<Vec<NicAsked>>,
    ) -> Result<Instance> {
        self.make_room(base, spec, nics, &Extra::default()).await
    }

    /// The same with more than the files of its stage.
    pub(super) async fn make_room(
        &self,
        base: &Base,
        spec: ContainerSpec,
        nics: Option<Vec<NicAsked>>,
        extra: &Extra,
    ) -> Result<Instance> {
        let new = self.room(base, spec, nics, extra)?;
        let mut refused_alone = 0;
        loop {
            let entering = self.shared.entering();
            match self.door.control().create_instance(&self.caller, new.clone()).await {
                Ok(made) => {
                    self.note_room(made.meta.id);
                    return Ok(made);
                }
                Err(error) if matches!(error.code, Code::QuotaExceeded | Code::NoCapacity) => {
                    drop(entering);
                    // Another step of the build may have what is missing, or just have given it back: then nobody is left to
                    // wait for, and the next try tells.
                    refused_alone = if self.until_room().await? { 0 } else { refused_alone + 1 };
                    if refused_alone > REFUSED_ALONE_MAX {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What is asked for.
    fn room(
        &self,
        base: &Base,
        spec: ContainerSpec,
        nics: Option<Vec<NicAsked>>,
        extra: &Extra,
    ) -> Result<NewInstance> {
        let number = self.next_number();
        let name = format!("build-{}-{number}", &self.build[..12]);
        let size = self.asked.host.size()?;
        let spec = ContainerSpec {
            name: "main".into(),
            image: Some(base.id),
            restart: RestartPolicy::No,
            cpu_millis: size.cpu_millis,
            ulimits: self.asked.host.ulimits()?,
            mounts: extra.shown.clone(),
            tmpfs: extra.tmpfs.clone(),
            ..spec
        };
        let secret_env = extra.secret_env.clone();
        Ok(NewInstance {
            name,
            description: "a step of a build".into(),
            labels: Labels::new(),
            tags: BTreeSet::new(),
            access: Access::default(),
            user: None,
            kind: Kind::Container,
            image: None,
            root: None,
            flavor: None,
            vcpus: size.vcpus,
            memory_mib: size.memory_mib,
            cpu_weight: size.cpu_weight,
            disk_gib: None,
            thick: false,
            nics,
            security_groups: None,
            keypairs: vec![],
            user_data_base64: None,
            config_drive: false,
            accelerator: Accelerator::Auto,
            restart: RestartPolicy::No,
            containers: vec![ContainerAsked { image: base.id.to_string(), spec, secret_env }],
            volumes: extra.volumes.clone(),
            server_group: None,
            files: extra.files.clone(),
            schedule: None,
            shared: Default::default(),
            isolation: Isolation::Shared,
            publish_within: vec![],
            floating_ip: None,
            publish: vec![],
            autostart: false,
            start_after: vec![],
            extra_hosts: container::extra_hosts(&self.door, &self.caller, &self.asked.host)?,
            succeeds: None,
            grace_s: Some(0),
            remove_on_exit: false,
            start: false,
        })
    }

    /// Removes a container. It is waited for at the end of the build.
    pub(super) async fn leave(&self, id: InstanceId) {
        if let Err(error) = self.door.control().delete_instance(&self.caller, &id.to_string()).await
            && error.code != Code::NotFound
        {
            tracing::warn!(%error, "a container of a build is left until the next start");
        }
    }

    /// Removes all containers of the build, and waits until they are gone.
    pub(super) async fn leave_all(&self) {
        for id in self.rooms() {
            self.leave(id).await;
        }
        for id in self.rooms() {
            let gone = |sight: &watch::Sight| sight.instance.is_none().then_some(());
            watch::until(&self.door, id, Some(GONE_TIMEOUT), gone).await;
        }
    }

    /// Starts a container's program, tells what it says, and waits for its end.
    pub(super) async fn watch_program(&self, instance: &Instance) -> Result<Ended> {
        let streams = self.door.app().streams();
        let attach = Attach { container: None, input: false, keeps_input: false, waits: true };
        let mut session = streams.attach(instance, attach).await?;
        let started = self.door.control().start_instance(&self.caller, &instance.meta.id.to_string()).await?;
        container::up(&self.door, &self.caller, &started).await?;
        let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
        let work = async {
            tokio::join!(self.tell_output(Output::Stdout, stdout), self.tell_output(Output::Stderr, stderr));
            session.program.wait().await
        };
        tokio::select! {
            code = work => Ok(Ended::With(code?)),
            () = self.cut.cancelled() => Ok(Ended::Cut),
        }
    }

    async fn tell_output(&self, from: Output, output: Option<Reader>) {
        let Some(mut output) = output else { return };
        let (mut buffer, mut begun) = (vec![0; OUTPUT_BYTES], vec![]);
        while let Ok(count @ 1..) = output.read(&mut buffer).await {
            begun.extend_from_slice(&buffer[..count]);
            // A character that was cut waits for its end.
            let whole = match std::str::from_utf8(&begun) {
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                _ => begun.len(),
            };
            let rest = begun.split_off(whole);
            let text = String::from_utf8_lossy(&begun).into_owned();
            begun = rest;
            if !text.is_empty() {
                self.tell.output(from, text).await;
            }
        }
        if !begun.is_empty() {
            self.tell.output(from, String::from_utf8_lossy(&begun).into_owned()).await;
        }
    }

    /// Fails if the client is gone.
    pub(super) fn check(&self) -> Result<()> {
        if self.cut.is_cancelled() {
            return Err(Failure::new(Code::Conflict, "the build was cancelled: its client is gone"));
        }
        Ok(())
    }
}
