//! A driver over directories, control groups and ids of its own, and micro guests to run in it. Removes all of it when dropped.

use model::{
    id::{InstanceId, ProjectId, VolumeId},
    metadata::GuestData,
    plan::{Accelerator, Body, BootPlan, DiskFormat, DiskPlan, IdRange, InstancePlan, VmPlan},
};
use node::{
    driver::{Driver, Seen, Stream},
    vm::driver::{Settings, VmDriver},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use sys::cgroup::Tree;
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, time::timeout};

/// A micro guest is up in about 4 s on an idle machine; tests share two cores.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(120);
/// The guest's and QEMU's answers to everything else.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Lab {
    pub directory: TempDir,
    pub cgroups: Tree,
    pub uid: u32,
}

impl Lab {
    pub fn new() -> Lab {
        let directory = tempfile::Builder::new().prefix("hv").tempdir().unwrap();
        let unique: u32 = rand::random();
        let cgroups = Tree::probe(&format!("holm-vm-test-{unique:08x}")).unwrap();
        Lab { directory, cgroups, uid: 1_000_000 + unique % 1_000_000 }
    }

    /// A new driver over the same directories, as after a restart of the daemon.
    pub fn driver(&self) -> VmDriver {
        VmDriver::new(self.settings())
    }

    pub fn settings(&self) -> Settings {
        Settings {
            run: self.directory.path().join("run"),
            state: self.directory.path().join("state"),
            accelerator_cache: self.directory.path().join("kvm.json"),
            cgroups: self.cgroups.clone(),
            qemu: None,
        }
    }

    /// A micro guest with a direct kernel, two CPUs, no disk and no card.
    pub fn plan(&self) -> InstancePlan {
        let id = InstanceId::from_random(rand::random());
        let project = ProjectId::from_random(rand::random());
        let guest = GuestData {
            id,
            project,
            name: "micro".into(),
            hostname: "micro-of-holm".into(),
            flavor: "micro".into(),
            keys: vec![],
            metadata: Default::default(),
            user_data_base64: None,
            nics: vec![],
            public_ipv4: None,
            devices: vec![],
            on_host_kernel: false,
        };
        let image = micro_image();
        let boot = BootPlan::Kernel {
            kernel: image.join("kernel"),
            initrd: Some(image.join("initrd")),
            cmdline: std::fs::read_to_string(image.join("cmdline")).unwrap().trim().to_owned(),
        };
        InstancePlan {
            id,
            project,
            boot: 1,
            name: "micro".into(),
            hostname: "micro".into(),
            id_range: IdRange { base: self.uid, count: 1 },
            vcpus: 2,
            memory_mib: 128,
            cpu_weight: 100,
            pids_max: 256,
            nics: vec![],
            disks: vec![],
            body: Body::Vm(VmPlan { boot, guest, config_drive: true, accelerator: Accelerator::Tcg }),
        }
    }

    /// A raw disk of 16 MiB, readable by nobody but root.
    pub fn disk(&self, name: &str) -> DiskPlan {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.directory.path().join(name);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.set_len(16 << 20).unwrap();
        let volume = VolumeId::from_random(rand::random());
        DiskPlan {
            volume,
            path,
            format: DiskFormat::Raw,
            backing: vec![],
            read_only: false,
            serial: volume.to_string()[..20].to_owned(),
            boot_index: None,
            mount_path: None,
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.cgroups.list("").unwrap_or_default() {
            if let Err(error) = self.cgroups.kill(&name).and_then(|()| self.cgroups.delete(&name)) {
                eprintln!("the control group {name} is left: {error}");
            }
        }
        if let Err(error) = self.cgroups.delete_root() {
            eprintln!("the control group is left: {error}");
        }
    }
}

/// The image that `scripts/images/build micro` makes.
pub fn micro_image() -> PathBuf {
    let cache = std::env::var_os("HOLM_IMAGE_CACHE").map(PathBuf::from);
    let home = || Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache/holm/images");
    let image = cache.unwrap_or_else(home).join("micro/current");
    assert!(image.join("kernel").exists(), "{} is missing: run scripts/images/build micro", image.display());
    image
}

/// The console of a guest, and all that it has said.
pub struct Terminal {
    stream: Stream,
    pub seen: String,
}

impl Terminal {
    pub async fn open(driver: &VmDriver, id: InstanceId) -> Terminal {
        Terminal { stream: driver.console(id).await.unwrap(), seen: String::new() }
    }

    /// Reads until `text` came after what was read before, and returns what came with it.
    pub async fn expect(&mut self, text: &str, deadline: Duration) -> String {
        let start = self.seen.len();
        let mut buffer = [0; 4096];
        let reading = async {
            while !self.seen[start..].contains(text) {
                let count = self.stream.read(&mut buffer).await.unwrap();
                assert!(count > 0, "the console closed");
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        };
        let found = timeout(deadline, reading).await;
        assert!(found.is_ok(), "{text:?} did not come; the console:\n{}", self.seen);
        self.seen[start..].to_owned()
    }

    /// Logs in as root on a guest that has just booted.
    pub async fn log_in(&mut self) {
        self.expect("login:", BOOT_DEADLINE).await;
        self.send("root\n").await;
        // The login empties the queue of what was typed before its shell asks.
        self.expect("# ", DEADLINE).await;
        self.run("true").await;
    }

    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Runs a command in the guest's shell and returns what it printed.
    pub async fn run(&mut self, command: &str) -> String {
        let mark: u32 = rand::random();
        // The mark is split in the command, so that its echo is not taken for its output.
        self.send(&format!("{command}; echo end'-'of-{mark:x}\n")).await;
        self.expect(&format!("end-of-{mark:x}"), DEADLINE).await
    }
}

/// Observes until `wanted` is seen.
pub async fn wait_seen(driver: &VmDriver, id: InstanceId, wanted: impl Fn(&Seen) -> bool) -> Seen {
    let mut changes = driver.changes();
    let mut last = None;
    let waiting = async {
        loop {
            let seen = driver.observe(id).await.unwrap();
            if wanted(&seen) {
                return seen;
            }
            last = Some(seen);
            // A change may have come before we listened: look again soon.
            let _ = timeout(Duration::from_millis(100), changes.recv()).await;
        }
    };
    match timeout(DEADLINE, waiting).await {
        Ok(seen) => seen,
        Err(_) => panic!("not seen in time; the last that was seen is {last:?}"),
    }
}
