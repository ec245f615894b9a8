//! A place of its own for each test: directories, cgroup tree, and pods made of a static busybox.

use model::{
    id::{InstanceId, ProjectId},
    plan::{Body, ContainerPlan, IdRange, InstancePlan, LogLimits, PodPlan, RestartPolicy},
};
use node::{
    container::driver::{PodDriver, PodDriverConfig},
    driver::{Driver, Exit, LogLine, LogQuery, Running, Seen},
};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

static LABS: AtomicU32 = AtomicU32::new(0);

/// One test's place.
pub struct Lab {
    pub directory: TempDir,
    pub driver: PodDriver,
    pub config: PodDriverConfig,
    base: u32,
    ids: Vec<InstanceId>,
}

impl Lab {
    pub fn new() -> Self {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::Builder::new().prefix("holm-pods-").tempdir().unwrap();
        make_image(&directory.path().join("image"));
        let config = PodDriverConfig {
            state: directory.path().join("state"),
            run: directory.path().join("run"),
            cgroup_root: format!("holm-test-{}-{number}", std::process::id()),
            program: Some(env!("CARGO_BIN_EXE_holm-shim-test").into()),
            machines: None,
        };
        Self {
            driver: PodDriver::new(config.clone()),
            config,
            directory,
            base: 10_000_000 + number * 65536,
            ids: Vec::new(),
        }
    }

    /// A container that runs a shell script.
    pub fn container(&self, name: &str, script: &str) -> ContainerPlan {
        ContainerPlan {
            name: name.into(),
            layers: vec![self.directory.path().join("image")],
            argv: vec!["sh".into(), "-c".into(), script.into()],
            env: vec![],
            secret_env: Default::default(),
            cwd: "/".into(),
            user: String::new(),
            tty: false,
            terminal_size: None,
            stdin_open: false,
            restart: RestartPolicy::No,
            stop_signal: 15,
            grace_s: 2,
            mounts: vec![],
            read_only_rootfs: false,
            cap_add: vec![],
            cap_drop: vec![],
            memory_mib: None,
            cpu_millis: None,
            ulimits: Default::default(),
            log: LogLimits::default(),
            upper: self.directory.path().join(format!("upper-{}-{name}", self.ids.len())),
            labels: Default::default(),
            system: None,
            role: Default::default(),
            lifecycle: Default::default(),
            groups: vec![],
            init: false,
            shm_bytes: None,
        }
    }

    /// A plan of a pod.
    pub fn pod(&mut self, containers: Vec<ContainerPlan>) -> InstancePlan {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.base.to_le_bytes());
        bytes[4..8].copy_from_slice(&std::process::id().to_le_bytes());
        bytes[8] = self.ids.len() as u8;
        let id = InstanceId::from_random(bytes);
        self.ids.push(id);
        InstancePlan {
            id,
            project: ProjectId::from_random([0; 16]),
            boot: 1,
            name: "pod".into(),
            hostname: "pod-host".into(),
            id_range: IdRange { base: self.base, count: 65536 },
            vcpus: 1,
            memory_mib: 64,
            cpu_weight: 100,
            pids_max: 64,
            nics: vec![],
            disks: vec![],
            body: Body::Pod(PodPlan {
                containers,
                extra_hosts: vec![],
                root_disk: None,
                files: vec![],
                shared: Default::default(),
                isolation: Default::default(),
            }),
        }
    }

    /// Starts a pod of one container with a script.
    pub async fn start(&mut self, script: &str) -> InstancePlan {
        let container = self.container("main", script);
        let plan = self.pod(vec![container]);
        self.driver.start(&plan).await.unwrap();
        plan
    }

    /// Runs a script to its end and gives its output.
    pub async fn run(&mut self, script: &str) -> (Exit, String) {
        let plan = self.start(script).await;
        let exit = self.ended(plan.id).await;
        (exit, self.output(plan.id).await)
    }

    pub async fn ended(&self, id: InstanceId) -> Exit {
        let mut last = None;
        until("the pod's end", async || match self.driver.observe(id).await.unwrap() {
            Seen::Stopped(exit) => {
                last = Some(exit);
                true
            }
            _ => false,
        })
        .await;
        last.unwrap()
    }

    pub async fn running(&self, id: InstanceId) -> Running {
        match self.driver.observe(id).await.unwrap() {
            Seen::Running(running) => running,
            other => panic!("not running: {other:?}"),
        }
    }

    /// Process id on this host of a container's first process.
    pub async fn pid(&self, id: InstanceId) -> i32 {
        let running = self.running(id).await;
        running.facts["containers"][0]["pid"].as_i64().unwrap() as i32
    }

    pub async fn lines(&self, id: InstanceId, query: LogQuery) -> Vec<LogLine> {
        let mut receiver = self.driver.logs(id, &query).await.unwrap();
        let mut lines = Vec::new();
        while let Some(line) = receiver.recv().await {
            lines.push(line);
        }
        lines
    }

    pub async fn output(&self, id: InstanceId) -> String {
        let lines = self.lines(id, LogQuery::default()).await;
        lines.iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
    }

    /// Waits until the output holds a text, and gives the output.
    pub async fn output_with(&self, id: InstanceId, text: &str) -> String {
        let mut output = String::new();
        until(text, async || {
            output = self.output(id).await;
            output.contains(text)
        })
        .await;
        output
    }

    /// Removes all pods and checks that nothing is left of them.
    pub async fn close(self) {
        for id in &self.ids {
            self.driver.destroy(*id).await.unwrap();
            self.driver.destroy(*id).await.expect("destroying twice is fine");
            assert_eq!(self.driver.observe(*id).await.unwrap(), Seen::Absent);
        }
        assert_eq!(self.driver.list().await.unwrap(), []);
        let place = self.directory.path().to_str().unwrap().to_string();
        until("the end of processes and mounts", async || {
            leftovers(&place, &self.config.cgroup_root).is_empty()
        })
        .await;
        let tree = sys::cgroup::Tree::probe(&self.config.cgroup_root).unwrap();
        tree.delete_root().expect("no cgroup is left");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A test that failed: end what it left, by its own cgroup tree and directory.
        if std::thread::panicking() {
            let tree = sys::cgroup::Tree::probe(&self.config.cgroup_root).unwrap();
            for name in tree.list("").unwrap_or_default() {
                let _ = tree.kill(&name);
                let _ = tree.delete(&name);
            }
            for id in &self.ids {
                let netns = self.config.run.join("netns").join(format!("i-{}", id.hex()));
                let _ = sys::netns::NetNs::delete(&netns);
                if let Ok(log) = fs::read_to_string(self.driver.places(*id).state.join("shim.log")) {
                    eprintln!("shim.log: {log}");
                }
            }
            let _ = tree.delete_root();
        }
    }
}

/// Mounts and processes of a test that are still there.
pub fn leftovers(place: &str, cgroup_root: &str) -> Vec<String> {
    let mut left: Vec<String> = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(place)).map(String::from));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let shown = read("cmdline");
        // The nursery goes with the driver.
        let is_shim = shown.contains("\0shim\0") && shown.contains(place);
        if is_shim || read("cgroup").contains(&format!("/{cgroup_root}/")) {
            left.push(format!("process {pid}: {shown}"));
        }
    }
    left
}

/// Waits until something is true.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A root file system of busybox.
pub fn make_image(root: &Path) {
    for directory in ["bin", "etc", "tmp", "root", "var", "usr"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let busybox = PathBuf::from("/usr/bin/busybox");
    let busybox = if busybox.exists() { busybox } else { "/bin/busybox".into() };
    fs::copy(&busybox, root.join("bin/busybox")).expect("busybox-static is needed");
    let list = Command::new(&busybox).arg("--list").output().unwrap();
    for name in String::from_utf8(list.stdout).unwrap().lines() {
        if name != "busybox" {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nwww:x:34:\nlog:x:5:web\n").unwrap();
    fs::write(root.join("etc/from-image"), "image").unwrap();
}
