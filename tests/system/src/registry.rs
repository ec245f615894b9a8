//! An image registry on loopback of the machine: Debian's docker-registry, started by `scripts/images/registry`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};
use sys::netns::NetNs;

/// A running registry. Ends when dropped.
pub struct Registry {
    script: PathBuf,
    directory: PathBuf,
}

impl Registry {
    /// Starts one at 127.0.0.1:`port` of `machine`, with the images `busybox` and `web`.
    ///
    /// # Panics
    /// With what the script says.
    pub fn start(machine: &NetNs, directory: &Path, port: u16) -> Self {
        let registry =
            Self { script: super::images::scripts().join("registry"), directory: directory.to_path_buf() };
        registry.run(machine, &["start"], &[&port.to_string()]);
        registry.run(machine, &["fill"], &[]);
        registry
    }

    /// Starts an empty one that nobody may use but `demo`, whose password is `open sesame`.
    ///
    /// # Panics
    /// With what the script says.
    pub fn start_closed(machine: &NetNs, directory: &Path, port: u16) -> Self {
        // bcrypt, with the least work that it has.
        const USERS: &str = "demo:$2b$04$qCK7USjWmdNPDEg1Gvx0MeYqkOt1hly.z.COJvxB3m5X0toaPfRre\n";
        std::fs::create_dir_all(directory).expect("a directory for the registry");
        std::fs::write(directory.join("htpasswd"), USERS).expect("its users");
        let registry =
            Self { script: super::images::scripts().join("registry"), directory: directory.to_path_buf() };
        registry.run(machine, &["start"], &[&port.to_string()]);
        registry
    }

    /// Pushes the image of an OCI layout directory and gives its digest.
    ///
    /// # Panics
    /// With what the script says.
    pub fn push(&self, machine: &NetNs, layout: &Path, name: &str) -> String {
        self.run(machine, &["push"], &[&layout.to_string_lossy(), name]).trim().to_string()
    }

    /// Where it keeps its blobs and links.
    pub fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn run(&self, machine: &NetNs, verb: &[&str], rest: &[&str]) -> String {
        let call = || Command::new(&self.script).args(verb).arg(&self.directory).args(rest).output();
        let output = machine.run(call).expect("enter").expect("scripts/images/registry");
        let (said, complained) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "registry {verb:?}: {said}{complained}");
        said.into_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = Command::new(&self.script).arg("stop").arg(&self.directory).output();
    }
}
