//! What clients see of an instance.

use crate::v1::{
    scene::Scene,
    served::Served,
    types::{
        Fault, Head, Reference,
        instance::{
            Container, Exit, ExtraHost, Instance as View, InstancePort, InstanceVolume, KeysPending,
            LogRequest, RunningSize, Trial, UlimitRequest,
        },
        list::ListQuery,
    },
};
use control::instance::action::same;
use model::{
    id::InstanceId,
    image::Image,
    instance::{
        ContainerSpec, Grant, Instance, InstanceStatus, Kind, State,
        keys::{KeyChange, NamedKey},
        phase::Phase,
        ulimit::{Ulimit, Ulimits},
    },
    network::Network,
    plan::LogLimits,
    port::Port,
    security_group::SecurityGroup,
    server_group::ServerGroup,
    volume::Volume,
};
use std::collections::BTreeMap;

fn extra_hosts(instance: &Instance) -> Vec<ExtraHost> {
    let host = |host: &model::instance::extra_host::ExtraHost| ExtraHost {
        name: host.name.clone(),
        address: host.address,
    };
    instance.extra_hosts.iter().map(host).collect()
}

impl Served for Instance {
    type View = View;
    const FILTERS: &'static [&'static str] = &["phase", "kind", "network"];
    const PHASES: &'static [&'static str] = &[
        "scheduling",
        "creating",
        "starting",
        "running",
        "pausing",
        "paused",
        "resuming",
        "suspending",
        "suspended",
        "stopping",
        "rebooting",
        "rebuilding",
        "resizing",
        "stopped",
        "exited",
        "failed",
        "deleting",
    ];

    fn view(&self, scene: &Scene<'_>) -> View {
        let status = scene.control.instance_status(self.meta.id);
        let status = status.as_ref().map(|s| &s.record);
        let ports: Vec<InstancePort> = self.ports.iter().filter_map(|id| port_view(*id, scene)).collect();
        let image = self.image.or_else(|| self.containers.first()?.image);
        let login = image.and_then(|id| scene.control.get::<Image>(id)).and_then(|i| i.record.login.clone());
        let (started_at, exit) = run_of(status);
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            kind: self.kind,
            phase: scene.control.phase(self),
            health: scene.control.health_word(self).map(|word| word.as_str().to_string()),
            ready: scene.control.is_ready(self),
            power: self.power,
            size: self.size.into(),
            until_restart: until_restart(self, status),
            cpu_weight: self.cpu_weight,
            flavor: self.flavor.map(|id| Reference { id: id.0, name: self.flavor_name.clone() }),
            image: image.map(|id| scene.reference::<Image>(id)),
            node: self.node.map(|id| scene.node(id)),
            server_group: self
                .server_group
                .filter(|id| scene.control.get::<ServerGroup>(*id).is_some())
                .map(|id| scene.reference::<ServerGroup>(id)),
            addresses: ports.iter().flat_map(|port| port.addresses.iter().copied()).collect(),
            floating_ips: ports.iter().flat_map(|port| port.floating_ips.iter().copied()).collect(),
            ports,
            publish: self.publish.iter().map(super::publish::view).collect(),
            volumes: self.volumes.iter().filter_map(|id| volume_view(*id, scene)).collect(),
            keypairs: self.keys.iter().map(|(name, _)| name.clone()).collect(),
            keys_pending: keys_pending(self, status),
            login,
            containers: self.containers.iter().map(|spec| container_view(self, spec, scene)).collect(),
            files: self.files.iter().map(Into::into).collect(),
            config_drive: self.config_drive,
            accelerator: self.accelerator,
            extra_hosts: extra_hosts(self),
            schedule: self.schedule.as_ref().map(|schedule| schedule.at.to_string()),
            next_start: self.schedule.as_ref().and_then(model::schedule::Schedule::next),
            shared: (&self.shared).into(),
            isolation: self.isolation,
            autostart: self.autostart,
            start_after: {
                let there = |id: &&InstanceId| scene.control.get::<Instance>(**id).is_some();
                self.start_after.iter().filter(there).map(|id| scene.reference::<Instance>(*id)).collect()
            },
            restart: self.restart,
            grace_s: self.grace_s,
            remove_on_exit: self.remove_on_exit,
            locked: self.lock.is_some(),
            shelved: self.shelved,
            rescue: self.rescue.as_ref().map(|rescue| scene.reference::<Image>(rescue.image)),
            lock_reason: self.lock.as_ref().and_then(|lock| lock.reason.clone()),
            tags: self.tags.clone(),
            access_v4: self.access.v4,
            access_v6: self.access.v6,
            trial: self.trial.as_ref().map(|trial| Trial {
                size: trial.size.into(),
                flavor: trial.flavor.map(|id| Reference { id: id.0, name: trial.flavor_name.clone() }),
                since: trial.since,
            }),
            boots: self.boots,
            restarts: status.map_or(0, |s| s.restarts),
            progress: status.map(|s| s.progress.clone()).unwrap_or_default(),
            started_at,
            exit,
            fault: status.and_then(|s| s.fault_of(self)).map(Fault::from),
            facts: status.map(|s| s.facts.clone()).unwrap_or_default(),
        }
    }

    fn phase_word(&self, scene: &Scene<'_>) -> &'static str {
        scene.control.phase(self).as_str()
    }

    fn fits(&self, query: &ListQuery, scene: &Scene<'_>) -> control::Result<bool> {
        if query.kind.as_ref().is_some_and(|kind| kind != self.kind.as_str()) {
            return Ok(false);
        }
        let Some(network) = &query.network else {
            return Ok(true);
        };
        let network = scene.network_meant(network)?;
        let ports = scene.control.ports_of(&self.ports);
        Ok(ports.iter().any(|port| port.network == network))
    }

    /// Settled means: in a phase that stays, and with what was plugged in and out in the guest's hands.
    fn is_settled(&self, scene: &Scene<'_>) -> bool {
        let phase = scene.control.phase(self);
        if !phase.is_settled() {
            return false;
        }
        let status = scene.control.instance_status(self.meta.id);
        match status.as_ref().map(|s| &s.record) {
            Some(status)
                if matches!(phase, Phase::Running | Phase::Paused) && status.fault_of(self).is_none() =>
            {
                let has = |has: Grant| match status.disk_waits {
                    true => Grant { disk_gib: self.grant().disk_gib, ..has } == self.grant(),
                    false => has == self.grant(),
                };
                let grown = self.has_own_kernel() || status.grant.is_none_or(has);
                grown && same(&self.ports, &status.ports) && same(&self.volumes, &status.volumes)
            }
            _ => true,
        }
    }
}

/// What a running guest has while its wish is another.
fn until_restart(instance: &Instance, status: Option<&InstanceStatus>) -> Option<RunningSize> {
    let status = status.filter(|s| matches!(s.state, State::Running { .. } | State::Paused { .. }))?;
    let has = status.grant?;
    let wish = instance.grant();
    let differs = Grant { cpu_weight: wish.cpu_weight, ..has } != wish;
    differs.then_some(RunningSize { vcpus: has.vcpus, memory_mib: has.memory_mib, disk_gib: has.disk_gib })
}

/// What a guest has not taken over yet of the keys that it is to let in.
fn keys_pending(instance: &Instance, status: Option<&InstanceStatus>) -> Option<KeysPending> {
    let status = status.filter(|_| instance.kind == Kind::Vm)?;
    let change = KeyChange::between(&instance.keys, status.keys.as_ref()?);
    let names = |keys: Vec<NamedKey>| keys.into_iter().map(|(name, _)| name).collect();
    (!change.is_empty()).then(|| KeysPending {
        add: names(change.add),
        remove: names(change.remove),
        reason: status.keys_refused.clone(),
    })
}

fn run_of(status: Option<&InstanceStatus>) -> (Option<jiff::Timestamp>, Option<Exit>) {
    match status.map(|s| &s.state) {
        Some(State::Running { since } | State::Paused { since }) => (Some(*since), None),
        Some(State::Stopped { code, cause, failed, at }) => {
            let exit = Exit { code: *code, cause: cause.clone(), failed: *failed, at: *at };
            (None, Some(exit))
        }
        Some(State::Absent) | None => (None, None),
    }
}

fn port_view(id: model::id::PortId, scene: &Scene<'_>) -> Option<InstancePort> {
    let found = scene.control.get::<Port>(id)?;
    let port = &found.record;
    Some(InstancePort {
        id: id.0,
        name: port.meta.name.to_string(),
        network: scene.reference::<Network>(port.network),
        mac: port.mac,
        addresses: port.addresses.iter().map(|fixed| fixed.address).collect(),
        floating_ips: scene.floating_of(id),
        security_groups: port.security_groups.iter().map(|g| scene.reference::<SecurityGroup>(*g)).collect(),
        rate_mbit: port.rate_mbit,
        tag: port.device_tag.clone(),
        aliases: port.aliases.clone(),
    })
}

fn volume_view(id: model::id::VolumeId, scene: &Scene<'_>) -> Option<InstanceVolume> {
    let found = scene.control.get::<Volume>(id)?;
    let volume = &found.record;
    Some(InstanceVolume {
        id: id.0,
        name: volume.meta.name.to_string(),
        size_gib: volume.size_gib,
        used_bytes: scene.control.volume_status(id).map_or(0, |s| s.record.used_bytes),
        mount_path: volume.mount_path.clone(),
        serial: volume.serial(),
        tag: volume.device_tag.clone(),
        delete_with_instance: volume.delete_with_instance,
    })
}

fn ulimits(all: &Ulimits) -> BTreeMap<String, UlimitRequest> {
    let number = |limit: u64| (limit != u64::MAX).then_some(limit);
    let one = |limit: &Ulimit| UlimitRequest { soft: number(limit.soft), hard: number(limit.hard) };
    all.iter().map(|(resource, limit)| (resource.name().to_string(), one(limit))).collect()
}

/// How much of a log is kept, where that is not the usual.
fn log(limits: LogLimits) -> Option<LogRequest> {
    let LogLimits { size_bytes_max, files_max } = limits;
    let told = LogRequest { file_bytes_max: Some(size_bytes_max), files_max: Some(files_max) };
    (limits != LogLimits::default()).then_some(told)
}

fn container_view(instance: &Instance, spec: &ContainerSpec, scene: &Scene<'_>) -> Container {
    Container {
        name: spec.name.clone(),
        image: spec.image.map(|id| scene.reference::<Image>(id)),
        entrypoint: spec.entrypoint.clone(),
        args: spec.args.clone(),
        env: spec.env.clone(),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        tty: spec.tty,
        stdin_open: spec.stdin_open,
        restart: spec.restart,
        read_only: spec.read_only,
        cap_add: spec.cap_add.clone(),
        cap_drop: spec.cap_drop.clone(),
        tmpfs: spec.tmpfs.clone(),
        health_check: scene.control.health_asked(spec).map(Into::into),
        health: scene.control.health(instance, spec).map(Into::into),
        hostname: spec.hostname.clone(),
        role: spec.role,
        mounts: spec.mounts.iter().map(Into::into).collect(),
        secret_env: spec.secret_env.keys().cloned().collect(),
        cpu_millis: spec.cpu_millis,
        memory_mib: spec.memory_mib,
        probes: (&spec.probes).into(),
        lifecycle: (&spec.lifecycle).into(),
        groups: spec.groups.clone(),
        init: spec.init,
        shm_bytes: spec.shm_bytes,
        memory_mounts: spec.memory_mounts.iter().map(Into::into).collect(),
        stop_signal: spec.stop_signal.clone(),
        pids_max: spec.pids_max,
        ulimits: ulimits(&spec.ulimits),
        log: log(spec.log),
        stdin_once: spec.stdin_once,
    }
}
