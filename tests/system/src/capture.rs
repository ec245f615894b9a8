//! What is heard on an interface, by tcpdump: the proof that a packet came, or that none did.

use crate::eventually;
use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};
use sys::netns::NetNs;

const READY_PATIENCE: Duration = Duration::from_secs(20);

/// Writes down what passes an interface, until it is dropped.
pub struct Capture(Child, PathBuf);

impl Capture {
    /// Begins to write to `file`, and listens when this returns.
    ///
    /// # Panics
    /// When tcpdump cannot be started or does not listen.
    pub fn begin(namespace: &NetNs, device: &str, file: PathBuf) -> Self {
        let out = fs::File::create(&file).expect("a file for what is heard");
        let again = out.try_clone().expect("the same file");
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-l", "-n", "--immediate-mode", "-i", device]);
        tcpdump.stdin(Stdio::null()).stdout(out).stderr(again);
        let child = namespace.run(move || tcpdump.spawn()).expect("enter").expect("tcpdump");
        let capture = Self(child, file);
        eventually("tcpdump listens", READY_PATIENCE, || capture.text().contains("listening on"));
        capture
    }

    /// All that was heard so far, a line a packet.
    ///
    /// # Panics
    /// When its file is gone.
    pub fn text(&self) -> String {
        fs::read_to_string(&self.1).expect("what was heard")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
