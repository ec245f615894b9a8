//! The process of holm: started in the machine's namespace, killed as a power cut would, stopped as asked.

use crate::{until, wait::eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};
use sys::netns::NetNs;

const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Lines of the daemon's log that a failed test shows.
const LOG_LINES: usize = 60;

/// A running `holm serve`.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

/// The program under test: `HOLM_TEST_PROGRAM`, else the one that the build put beside this test's.
///
/// # Panics
/// When there is none.
pub fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("HOLM_TEST_PROGRAM") {
        return program.into();
    }
    let own = std::env::current_exe().expect("the test's own program");
    let program = own.parent().and_then(Path::parent).expect("target/PROFILE/deps").join("holm");
    assert!(program.exists(), "{} is missing: run cargo build --bin holm first", program.display());
    program
}

impl Daemon {
    /// Starts this command line of holm's in `machine`; what it says goes to the end of `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(machine: &NetNs, mut command: Command, log: &Path) -> Self {
        let file = File::options().append(true).create(true).open(log).expect("log");
        let again = file.try_clone().expect("log");
        command.stdin(Stdio::null()).stdout(file).stderr(again);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOLM_") {
                command.env_remove(name);
            }
        }
        let child = machine.run(move || command.spawn()).expect("enter").expect("start holm");
        Self { child, log: log.to_path_buf() }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Ends it without a word, as a power cut would.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Asks it to stop and waits.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub fn stop(&mut self) -> ExitStatus {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).expect("SIGTERM");
        self.wait(STOP_PATIENCE)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let ended = until(patience, || self.child.try_wait().expect("wait"));
        ended.unwrap_or_else(|| panic!("holm has not ended; its log ends with:\n{}", self.log_end()))
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The end of what it said.
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Waits until its log has `text`.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub fn wait_for_log(&self, text: &str, patience: Duration) {
        let has = || std::fs::read_to_string(&self.log).unwrap_or_default().contains(text);
        eventually(&format!("the daemon says {text:?}"), patience, has);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
