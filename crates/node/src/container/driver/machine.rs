//! Pods with a machine of their own, as far as they differ on the host: what the machine is made of, and what is asked of its
//! relay instead of the host's kernel.

use super::{PodDriver, answer, blocking, connect, io_error, read_json};
use crate::{
    container::{
        bundle::{Limits, Places, Pod},
        machine::{
            boot::{self, Kernel},
            order::{DiskRole, Machine, MachineDisk},
            qemu::MONITOR,
        },
        protocol::{POD, Reply, Request},
    },
    driver::{Dialed, DiskTraffic, DriverError, ProcessSeen, Usage},
    vm::{
        accel::Accelerator,
        disk_traffic,
        hardware::Hardware,
        launch,
        machine::{HostFacts, cpu_model},
        qmp::{DEADLINE, Qmp},
    },
};
use model::{
    id::{InstanceId, PortId, VolumeId},
    instance::Grant,
    plan::{Accelerator as Wanted, DiskFormat, DiskPlan, InstancePlan},
};
use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Longest time in microseconds that a guest can say it was held back: a hundred years.
const THROTTLED_US_MAX: u64 = 100 * 365 * 24 * 3600 * 1_000_000;
/// Most processes that a kernel can have (PID_MAX_LIMIT).
const PIDS_MAX: u64 = 1 << 22;
/// Name of the root disk by which the guest finds it.
const ROOT_SERIAL: &str = "root";

/// What machines of pods are made with.
#[derive(Debug, Clone)]
pub struct Machines {
    /// The host's QEMU and KVM.
    pub hardware: Arc<Hardware>,
    /// Kernel that guests boot, if it is not to be looked for.
    pub guest_kernel: Option<PathBuf>,
}

/// What the host gives to one start.
#[derive(Debug)]
pub(super) struct Offer {
    facts: HostFacts,
    accelerator: Accelerator,
    acceleration: String,
    kvm_group: Option<u32>,
}

impl PodDriver {
    /// What the host gives to the machine of a pod that is to start; `None` for a pod on the host's kernel.
    ///
    /// # Errors
    /// `Missing` without QEMU.
    pub(super) async fn offer(&self, plan: &InstancePlan) -> Result<Option<Offer>, DriverError> {
        if !plan.is_pod_in_machine() {
            return Ok(None);
        }
        let Some(machines) = &self.config.machines else {
            return Err(DriverError::Missing {
                what: "what pods with a kernel of their own run in".into(),
                hint: "run the pod on the host's kernel".into(),
            });
        };
        let facts = machines.hardware.facts().await?;
        let judgement = machines.hardware.judgement().await;
        let accelerator = judgement.choose(Wanted::Auto)?;
        Ok(Some(Offer {
            facts,
            accelerator,
            acceleration: judgement.describe(accelerator),
            kvm_group: judgement.device_group,
        }))
    }

    /// Makes the machine of a pod whose directories are there. Blocking.
    pub(super) fn furnish(
        &self,
        plan: &InstancePlan,
        pod: &Pod,
        offer: Offer,
    ) -> Result<Machine, DriverError> {
        let (kernel, program, made) = self.boots_from()?;
        let initramfs = boot::initramfs(&kernel, program, &made)?;
        self.assemble(plan, pod, offer, (boot::image(&kernel, &made)?, initramfs))
    }

    /// What guests boot: the kernel, holm itself, and where what is made of them lies.
    fn boots_from(&self) -> Result<(Kernel, &Path, PathBuf), DriverError> {
        let wanted = self.config.machines.as_ref().and_then(|machines| machines.guest_kernel.as_deref());
        let kernel = Kernel::find(wanted)?;
        let program = self.config.program.as_deref().ok_or_else(|| DriverError::Missing {
            what: "holm's own program".into(),
            hint: "set the path of holm".into(),
        })?;
        Ok((kernel, program, self.config.state.join("guest")))
    }

    /// Memory in MiB that the machine of a pod takes beside the pod's. Blocking.
    ///
    /// # Errors
    /// `Missing` where no pod can have a machine; what the host's file system refuses.
    pub fn overhead_mib(&self) -> Result<u64, DriverError> {
        let (kernel, program, made) = self.boots_from()?;
        Ok(boot::overhead_mib(boot::initramfs_bytes(&kernel, program, &made)?))
    }

    /// The machine, with its disks made where they are not there.
    fn assemble(
        &self,
        plan: &InstancePlan,
        pod: &Pod,
        offer: Offer,
        (kernel, initramfs): (PathBuf, PathBuf),
    ) -> Result<Machine, DriverError> {
        // One that is not there is told when it is opened.
        let overhead_mib = boot::overhead_mib(initramfs.metadata().map_or(0, |meta| meta.len()));
        let mut machine = Machine {
            program: offer.facts.program,
            machine_type: offer.facts.q35,
            cpu_model: cpu_model(offer.accelerator).into(),
            accelerator: offer.accelerator,
            acceleration: offer.acceleration,
            kvm_group: offer.kvm_group,
            vhost_net: offer.facts.vhost_net,
            vcpus: plan.vcpus,
            memory_mib: plan.memory_mib.saturating_add(overhead_mib),
            overhead_mib,
            kernel,
            initramfs,
            limits: Limits::default(),
            disks: self.disks(plan, pod)?,
            nics: plan.nics.clone(),
            maintenance: false,
        };
        let limits = launch::limits(&machine.hardware(), plan);
        machine.limits = Limits {
            cpu_quota_us: limits.cpu_quota_us,
            cpu_weight: limits.cpu_weight.map(u64::from),
            memory_max_bytes: limits.memory_max_bytes,
            pids_max: limits.pids_max,
            disk_bytes: None,
        };
        Ok(machine)
    }

    /// Images, what the containers write, and volumes, in this order.
    fn disks(&self, plan: &InstancePlan, pod: &Pod) -> Result<Vec<MachineDisk>, DriverError> {
        let mut all: Vec<MachineDisk> = vec![];
        for (number, (layers, containers)) in images(pod).into_iter().enumerate() {
            let serial = format!("base-{number}");
            let path = pod.places.state.join(format!("{serial}.ext4"));
            self.bases.provide(layers, &path)?;
            let role = DiskRole::Base { containers };
            all.push(MachineDisk { disk: own_disk(all.len(), serial, path, true), role });
        }
        if let Some(path) = &pod.root_disk {
            let disk = own_disk(all.len(), ROOT_SERIAL.into(), path.clone(), false);
            all.push(MachineDisk { disk, role: DiskRole::Root });
        }
        let volume = |disk: &DiskPlan| MachineDisk { disk: disk.clone(), role: DiskRole::Volume };
        all.extend(plan.disks.iter().map(volume));
        Ok(all)
    }

    /// Gives a running pod another size as far as its machine has it: what that lacks comes with its next start.
    pub(super) async fn resize_inside(&self, plan: &InstancePlan, has: Grant) -> Result<Grant, DriverError> {
        let places = self.places(plan.id);
        let machine = blocking(move || of(&places).ok_or(DriverError::NotRunning)).await?;
        let vcpus = plan.vcpus.min(machine.vcpus);
        let memory_mib = plan.memory_mib.min(machine.memory_mib.saturating_sub(machine.overhead_mib));
        let limits = Limits {
            cpu_quota_us: Some(u64::from(vcpus) * 100_000),
            cpu_weight: Some(u64::from(plan.cpu_weight)),
            memory_max_bytes: Some(memory_mib << 20),
            pids_max: Some(plan.pids_max),
            disk_bytes: Some(has.disk_gib << 30),
        };
        self.set_limits(plan.id, limits).await?;
        Ok(Grant { vcpus, memory_mib, cpu_weight: plan.cpu_weight, disk_gib: has.disk_gib })
    }

    /// The processes of a pod, as its own kernel numbers them.
    pub(super) async fn processes_inside(&self, id: InstanceId) -> Result<Vec<ProcessSeen>, DriverError> {
        match self.ask(id, Request::Processes).await? {
            Reply::Processes { processes } => Ok(processes),
            _ => Err(unexpected("tell of its processes")),
        }
    }

    /// What a pod uses of its machine, as its own kernel counts it, and no more than its machine uses of this host.
    pub(super) async fn usage_inside(&self, id: InstanceId) -> Result<Usage, DriverError> {
        let told = match self.ask(id, Request::Usage).await? {
            Reply::Usage { usage } => usage,
            _ => return Err(unexpected("tell what it uses")),
        };
        let seen = self.stats(id).await?.into();
        let places = self.places(id);
        blocking(move || {
            of(&places).map(|machine| believed(told, seen, &machine)).ok_or(DriverError::NotRunning)
        })
        .await
    }

    /// Removes what nobody needs of the disks of images. Blocking.
    ///
    /// # Errors
    /// What cannot be listed or removed.
    pub fn tidy(&self) -> Result<u64, DriverError> {
        self.bases.collect(std::time::SystemTime::now())
    }

    /// Removes what a crash left of disks of images, when nobody makes any yet. Blocking.
    ///
    /// # Errors
    /// What cannot be listed or removed.
    pub fn sweep(&self) -> Result<(), DriverError> {
        self.bases.sweep()
    }
}

/// What a guest tells of its use, as far as that can be: `seen` is what the host counts of its machine.
fn believed(told: Usage, seen: Usage, machine: &Machine) -> Usage {
    let memory_bytes = told.memory_bytes.min(machine.memory_mib.saturating_mul(1 << 20));
    Usage {
        cpu_usage_us: told.cpu_usage_us.min(seen.cpu_usage_us),
        cpu_throttled_us: told.cpu_throttled_us.min(THROTTLED_US_MAX),
        memory_bytes,
        memory_inactive_file_bytes: told.memory_inactive_file_bytes.min(memory_bytes),
        pids: told.pids.min(PIDS_MAX),
    }
}

/// The images of a pod, each once, with the names of its containers.
fn images(pod: &Pod) -> Vec<(&[PathBuf], Vec<String>)> {
    let mut all: Vec<(&[PathBuf], Vec<String>)> = vec![];
    for container in &pod.containers {
        match all.iter_mut().find(|(layers, _)| *layers == container.layers.as_slice()) {
            Some((_, names)) => names.push(container.name.clone()),
            None => all.push((&container.layers, vec![container.name.clone()])),
        }
    }
    all
}

/// A disk that is no volume. Its id tells it from the machine's others, and is no volume's, since these are random.
fn own_disk(number: usize, serial: String, path: PathBuf, read_only: bool) -> DiskPlan {
    DiskPlan {
        volume: VolumeId(uuid::Uuid::from_u128(number as u128 + 1)),
        path,
        format: DiskFormat::Raw,
        backing: vec![],
        read_only,
        serial,
        boot_index: None,
        mount_path: None,
    }
}

/// The machine of a pod, if it has one of its own: then it has no network namespace on the host.
pub(super) fn of(places: &Places) -> Option<Machine> {
    if places.netns.exists() {
        return None;
    }
    read_json::<Pod>(&places.state.join(POD))?.machine
}

/// Connects to a port of the pod inside of its machine.
pub(super) async fn dial(places: Places, port: u16, limit: Duration) -> Result<Dialed, DriverError> {
    let stream = blocking(move || dial_inside(&places.run, port, limit)).await?;
    let led = tokio::net::UnixStream::from_std(stream);
    led.map(Dialed::Led).map_err(io_error("take the stream to the pod's port"))
}

/// What passed between a machine and its disks: of images, of what its containers write, and volumes. One that an older holm has
/// started has no monitor to tell it.
pub(super) async fn disk_traffic(run: &Path) -> Result<Option<DiskTraffic>, DriverError> {
    let monitor = run.join(MONITOR);
    if !monitor.exists() {
        return Ok(None);
    }
    let monitor = Qmp::connect(&monitor, DEADLINE).await?;
    Ok(Some(disk_traffic::of(&monitor).await?))
}

fn dial_inside(run: &Path, port: u16, limit: Duration) -> Result<UnixStream, DriverError> {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let mut client = connect(run)?;
    match answer(client.ask(&Request::Dial { port, limit_ms }, &[])) {
        Ok(Reply::Done) => {}
        // The pod's own refusal, as a connection to it would have met it.
        Err(DriverError::Refused { answer, .. }) => {
            return Err(io_error(format!("connect to port {port}"))(io::Error::other(answer)));
        }
        Ok(_) => return Err(unexpected("connect to its port")),
        Err(error) => return Err(error),
    }
    let stream = UnixStream::from(client.take_descriptor().ok_or_else(|| unexpected("connect to its port"))?);
    stream.set_nonblocking(true).map_err(io_error("take the stream to the pod's port"))?;
    Ok(stream)
}

fn unexpected(operation: &str) -> DriverError {
    io_error(format!("have the relay {operation}"))(io::ErrorKind::InvalidData.into())
}

/// The refusal of another port to a machine that runs and has no monitor.
pub(super) fn unsupported_nic(port: PortId) -> DriverError {
    DriverError::Unsupported {
        what: format!(
            "port {port} cannot be plugged in or out while the pod runs: its machine was started by an older holm"
        ),
        hint: "stop the instance and start it again: `holm stop`, `holm start`".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        container::{bundle, root_disk},
        driver::Driver,
    };
    use model::{
        id::ProjectId,
        instance::isolation::{GUEST_OVERHEAD_MIB, Isolation},
        plan::{Body, ContainerPlan, IdRange, PodPlan, RootDiskPlan},
    };
    use std::os::unix::fs::FileExt;

    fn container(name: &str, layers: &[&Path]) -> ContainerPlan {
        let told = serde_json::json!({
            "name": name, "layers": layers, "argv": ["/bin/serve"], "env": [], "cwd": "/", "user": "", "tty": false,
            "stdin_open": false, "restart": {"type": "no"}, "stop_signal": 15, "grace_s": 10, "mounts": [],
            "read_only_rootfs": false, "cap_add": [], "cap_drop": [], "memory_mib": null, "cpu_millis": null,
            "log": {"size_bytes_max": 1024, "files_max": 1}, "upper": format!("/state/{name}"),
        });
        serde_json::from_value(told).expect("a container")
    }

    fn plan(state: &Path, containers: Vec<ContainerPlan>) -> InstancePlan {
        let volume = DiskPlan {
            mount_path: Some("/data".into()),
            serial: "0f0f".into(),
            ..own_disk(77, String::new(), "/disks/data.raw".into(), false)
        };
        InstancePlan {
            id: InstanceId::from_random([1; 16]),
            project: ProjectId::from_random([2; 16]),
            boot: 1,
            name: "web".into(),
            hostname: "web".into(),
            id_range: IdRange { base: 1_000_000, count: 65536 },
            vcpus: 2,
            memory_mib: 256,
            cpu_weight: 300,
            pids_max: 100,
            nics: vec![],
            disks: vec![volume],
            body: Body::Pod(PodPlan {
                containers,
                extra_hosts: vec![],
                root_disk: Some(RootDiskPlan { path: state.join("root.ext4"), size_gib: 1 }),
                files: vec![],
                shared: Default::default(),
                isolation: Isolation::Vm,
            }),
        }
    }

    fn driver(directory: &Path) -> PodDriver {
        let hardware = Arc::new(Hardware::new(None, directory.join("kvm.json")));
        PodDriver::new(super::super::PodDriverConfig {
            state: directory.join("state"),
            run: directory.join("run"),
            cgroup_root: "holm-test".into(),
            program: Some("/usr/bin/holm".into()),
            machines: Some(Machines { hardware, guest_kernel: None }),
        })
    }

    #[tokio::test]
    async fn a_machine_has_each_image_once_and_all_disks() {
        let scratch = tempfile::tempdir().unwrap();
        let driver = driver(scratch.path());
        let layer = |name: &str| {
            let path = scratch.path().join("state/layers").join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let (one, other) = (layer("one"), layer("other"));
        let plan = plan(
            scratch.path(),
            vec![container("a", &[&one]), container("b", &[&one, &other]), container("c", &[&one])],
        );
        let mut pod = bundle::bundle(&plan, driver.places(plan.id)).unwrap();
        let offer = driver.offer(&plan).await.unwrap().expect("it has a machine");
        root_disk::make_for_machine(&pod).unwrap();
        for directory in [&pod.places.state, &pod.places.run] {
            std::fs::create_dir_all(directory).unwrap();
        }
        let boot = ("/boot/vmlinuz".into(), "/guest/initramfs".into());
        pod.machine = Some(driver.assemble(&plan, &pod, offer, boot).unwrap());
        super::super::write_json(&pod.places.state.join(POD), &pod).unwrap();

        let machine = of(&pod.places).expect("it is written down");
        assert_eq!(Some(&machine), pod.machine.as_ref());
        let told: Vec<_> =
            machine.disks.iter().map(|it| (it.disk.serial.as_str(), it.disk.read_only)).collect();
        assert_eq!(told, [("base-0", true), ("base-1", true), ("root", false), ("0f0f", false)]);
        let containers = |number: usize| match &machine.disks[number].role {
            DiskRole::Base { containers } => containers.join(" "),
            role => format!("{role:?}"),
        };
        assert_eq!([0, 1, 2, 3].map(containers), ["a c", "b", "Root", "Volume"]);
        let ids: std::collections::BTreeSet<_> = machine.disks.iter().map(|it| it.disk.volume).collect();
        assert_eq!(ids.len(), 4);
        assert!(machine.disks[..3].iter().all(|it| it.disk.path.is_file()));
        assert_eq!((machine.vcpus, machine.memory_mib), (2, 256 + GUEST_OVERHEAD_MIB));
        // The host limits QEMU, not the pod, which its own kernel limits.
        let limits = machine.limits;
        assert_eq!((limits.cpu_quota_us, limits.cpu_weight), (Some(200_000), Some(300)));
        assert!(limits.memory_max_bytes > Some(machine.memory_mib << 20) && limits.pids_max > Some(100));
        assert_eq!(pod.limits.memory_max_bytes, Some(256 << 20));
        assert!(pod.confinement().starts_with("a virtual machine with a kernel of its own"));
        // It needs no namespace on the host, and has what it was started with.
        assert!(!pod.places.netns.exists());
        let refused = unsupported_nic(PortId::from_random([5; 16]));
        assert!(matches!(&refused, DriverError::Unsupported { hint, .. } if hint.contains("holm stop")));

        // A larger root disk is longer, and nothing on the host looks into it.
        let root = scratch.path().join("root.ext4");
        std::fs::File::options().write(true).open(&root).unwrap().write_all_at(&[7; 4096], 0).unwrap();
        pod.limits.disk_bytes = Some(2 << 30);
        for _ in 0..2 {
            root_disk::make_for_machine(&pod).unwrap();
            let file = std::fs::File::open(&root).unwrap();
            let mut start = [0; 4096];
            file.read_exact_at(&mut start, 0).unwrap();
            assert_eq!((file.metadata().unwrap().len(), start), (2 << 30, [7; 4096]));
        }

        // Its names of the images' disks go with it; these stay for the next pod of the images.
        let bases = || std::fs::read_dir(scratch.path().join("state/bases")).unwrap().count();
        let had = bases();
        driver.destroy(plan.id).await.unwrap();
        assert!(!pod.places.state.exists() && !root.exists());
        assert_eq!(bases(), had);
    }

    #[test]
    fn a_guest_uses_no_more_than_its_machine() {
        let machine = crate::container::machine::example();
        let all = u64::MAX;
        let boast = Usage {
            cpu_usage_us: all,
            cpu_throttled_us: all,
            memory_bytes: all,
            memory_inactive_file_bytes: all,
            pids: all,
        };
        let seen = Usage { cpu_usage_us: 5_000, ..Usage::default() };
        let told = believed(boast, seen, &machine);
        assert_eq!((told.cpu_usage_us, told.memory_bytes), (5_000, machine.memory_mib << 20));
        assert_eq!((told.memory_inactive_file_bytes, told.pids), (told.memory_bytes, PIDS_MAX));
        assert!(told.cpu_throttled_us.checked_mul(1000).is_some(), "doors tell it in nanoseconds");
        let usual =
            Usage { cpu_usage_us: 4_000, memory_bytes: 9, memory_inactive_file_bytes: 3, pids: 2, ..seen };
        assert_eq!(believed(usual, seen, &machine), usual);
    }

    #[tokio::test]
    async fn what_the_host_lacks_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let plan = plan(scratch.path(), vec![container("a", &[])]);
        let missing =
            |error: DriverError| matches!(&error, DriverError::Missing { hint, .. } if !hint.is_empty());
        let with = |machines| {
            PodDriver::new(super::super::PodDriverConfig {
                state: scratch.path().into(),
                run: scratch.path().into(),
                cgroup_root: "holm-test".into(),
                program: None,
                machines,
            })
        };
        assert!(missing(with(None).offer(&plan).await.unwrap_err()));
        let hardware =
            Arc::new(Hardware::new(Some("/nonexistent/qemu".into()), scratch.path().join("kvm.json")));
        let machines = Machines { hardware, guest_kernel: None };
        assert!(missing(with(Some(machines)).offer(&plan).await.unwrap_err()));
    }
}
