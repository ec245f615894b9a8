//! Firewalls of others on the lab's machine: the real programs, with files, processes and mounts of their own.

use crate::{Lab, until};
use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

const SCRIPT: &str = include_str!("firewalls.sh");
const READY_PATIENCE: Duration = Duration::from_secs(30);

/// A Debian with firewalls, in the network namespace of the machine. What runs in it ends with it, and what was written
/// into its files is gone.
pub struct Firewalls {
    holder: Child,
    /// Process id of its first process, as the machine's root sees it.
    first: String,
    root: PathBuf,
}

impl Firewalls {
    /// Enters the machine; nothing runs yet.
    ///
    /// # Panics
    /// When it cannot be made, as do all functions here.
    pub fn enter(lab: &Lab) -> Self {
        let root = lab.directory().join("firewalls");
        let note = lab.directory().join("firewalls.pid");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child=KILL", "--propagation", "private"]);
        command.args(["bash", "-c", SCRIPT, "firewalls.sh"]);
        command.arg(lab.images.file("firewalls", "root")).arg(&root).arg(crate::program()).arg(&note);
        command.stdin(Stdio::null());
        let holder = lab.world.machine.run(move || command.spawn()).expect("enter").expect("unshare");
        let noted = || fs::read_to_string(&note).ok().filter(|pid| pid.ends_with('\n'));
        let first = until(READY_PATIENCE, noted).expect("the root of the firewalls");
        Self { holder, first: first.trim().to_string(), root: root.join("all") }
    }

    /// Runs a shell script there as root, and gives what it said when it succeeded.
    pub fn run(&self, script: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first, "--mount", "--pid", "--net", "chroot"]).arg(&self.root);
        command.args([
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "bash",
            "-euo",
            "pipefail",
            "-c",
            script,
        ]);
        let output = command.stdin(Stdio::null()).output().expect("nsenter");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{script}: {said:?}");
        said[0].clone()
    }
}

impl Drop for Firewalls {
    fn drop(&mut self) {
        // The kernel ends all that runs in it with its first process, which ends with its parent.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
