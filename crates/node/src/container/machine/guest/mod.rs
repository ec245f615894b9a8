//! The role `holm guest`: the first process of a pod's machine.
//!
//! It makes of a bare kernel what a shim expects of a host, starts the shim, hands on what is said between it and the relay
//! outside ([`agent`]), and when all has ended writes everything to the disks and takes the power away. Nothing of it may
//! end in another way: a machine without its first process would hang. It has a single thread, so that it may fork.
//!
//! ```text
//!  boot       a root that containers can leave, kernel file systems, modules, the port to the relay
//!  prepare    clock, host name, disks, network, the pod's files: as the order says
//!  agent      the shim, and all that passes the port
//!  down       processes, mounts, power
//! ```
//!
//! `holm guest files WORK` is a process of its own in there that works on files of the pod ([`files`]). In a machine for
//! maintenance no shim is started, and one process does all the work on files.

pub mod agent;
mod disks;
mod down;
mod early;
mod files;
mod network;
mod prepare;

use std::{
    ffi::OsString,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};
use sys::jail::{init::collect_any, process::Ended};

/// What cannot be done, for people: what reads it is the relay's log.
type Outcome<T = ()> = Result<T, String>;

/// Names what failed.
trait Step<T> {
    /// Adds what was tried.
    fn step(self, text: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, text: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| format!("cannot {}: {}", text(), error.into()))
    }
}

/// Runs the role, and does not come back from the first process but to refuse who is none. `arguments` are those after `guest`.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    if std::process::id() != 1 {
        match (arguments.next(), arguments.next(), arguments.next()) {
            (Some(word), Some(work), None) if word == files::ROLE => {
                return files::main(&work.to_string_lossy());
            }
            (Some(word), None, None) if word == files::KEEPER => return files::keep(),
            _ => {}
        }
        eprintln!("holm guest is started by the kernel of a pod's machine, not by people");
        return ExitCode::from(2);
    }
    // A panic of the first process would be one of the kernel.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tell(&error),
        Err(_) => tell("the guest's first process failed; what it said is above"),
    }
    down::power_off()
}

fn run() -> Outcome {
    early::leave_first_root()?;
    early::mount_all()?;
    early::load_modules()?;
    early::settle()?;
    let port = early::open_port()?;
    agent::serve(port, prepare::prepare).step(|| "serve the pod".into())
}

/// Tells the machine's console, as the kernel does: whatever is said there ends up in one place and in order.
pub fn tell(text: &str) {
    // Errors (3) are shown on a console that is quiet, too.
    let line = format!("<3>holm: {}\n", text.replace('\n', " "));
    if fs::write("/dev/kmsg", line).is_err() {
        eprintln!("holm: {text}");
    }
}

/// Collects every child that has ended, and those that others left behind. Never waits.
pub fn reap() -> Vec<(i32, Ended)> {
    std::iter::from_fn(collect_any).collect()
}
