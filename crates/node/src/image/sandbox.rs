//! Runs `qemu-img` on files made by strangers: as nobody, with little memory and time, and with nothing but one
//! directory to write.
//!
//! Parsers of disk formats are large and have had holes. The program gets its own user, no capabilities, an empty
//! environment and a working directory that is handed over open, so that no directory above it has to be readable. A
//! network is not needed and could only harm, but plain files are all that it is ever told of.

use super::cancel::StopFlag;
use nix::{
    sys::{
        resource::Resource,
        signal::{Signal, killpg},
    },
    unistd::Pid,
};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};
use sys::{
    pidfd::Exit,
    spawn::{Child, Command, SpawnError, Stdio},
};

/// Number under which the program holds its working directory.
const DIRECTORY_FD: i32 = 20;
/// Number of the first further file that the program may read.
const EXTRA_FD: i32 = 21;
/// Files that the program may open beside those.
const OPEN_FILES_MAX: u64 = 64;
/// Most bytes of output that are read; the program is stopped by a full pipe past them.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;
/// Characters of its complaint that are shown.
const COMPLAINT_CHARS_MAX: usize = 400;
/// How often a waiting thread asks whether it should stop.
const POLL: Duration = Duration::from_millis(50);
/// Time in which a killed process is reaped.
const REAP_TIMEOUT: Duration = Duration::from_secs(30);

/// Who runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxUser {
    /// User. Owns nothing of worth.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Default for SandboxUser {
    /// `nobody`.
    fn default() -> Self {
        Self { uid: 65534, gid: 65534 }
    }
}

/// What the program may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxLimits {
    /// Wall clock.
    pub timeout: Duration,
    /// Address space.
    pub memory_bytes_max: u64,
    /// Processor time.
    pub cpu_s_max: u64,
    /// Largest file that it may write.
    pub file_bytes_max: u64,
}

/// Why the program gave no result.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// It could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: SpawnError,
    },
    /// Pipes or waiting failed.
    #[error("cannot follow {program}")]
    Follow {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It said no.
    #[error("{program} refuses: {complaint}")]
    Refused {
        /// The program.
        program: String,
        /// Its exit code.
        code: Option<i32>,
        /// Its words.
        complaint: String,
    },
    /// It took too long.
    #[error("{program} was stopped after {timeout:?}")]
    Timeout {
        /// The program.
        program: String,
        /// The limit.
        timeout: Duration,
    },
    /// Nobody waits for the result any more.
    #[error("the work was cancelled")]
    Cancelled,
}

/// The name under which the program finds the further file of this place, counted from 0.
pub(super) fn extra_file_name(place: usize) -> String {
    format!("/proc/self/fd/{}", EXTRA_FD as usize + place)
}

/// Runs a program in `directory`, which belongs to the sandbox's user; gives what it wrote to its standard output.
/// `extra` are further files that everyone may read, wherever they lie. Blocking.
pub(super) fn run(
    program: &str,
    arguments: &[&str],
    directory: &Path,
    extra: Vec<File>,
    user: SandboxUser,
    limits: SandboxLimits,
    flag: &StopFlag,
) -> Result<Vec<u8>, SandboxError> {
    let follow = |source| SandboxError::Follow { program: program.to_string(), source };
    let directory = File::open(directory).map_err(follow)?;
    let (output, output_end) = io::pipe().map_err(follow)?;
    let (errors, errors_end) = io::pipe().map_err(follow)?;
    let mut command = Command::new(program);
    let files_max = OPEN_FILES_MAX + 2 * extra.len() as u64;
    for (number, file) in (EXTRA_FD..).zip(extra) {
        command = command.fd(number, file);
    }
    let child = command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdout(Stdio::Fd(OwnedFd::from(output_end)))
        .stderr(Stdio::Fd(OwnedFd::from(errors_end)))
        .fd(DIRECTORY_FD, directory)
        // The link leads straight to the open directory, so that those above it need no permission.
        .current_dir(format!("/proc/self/fd/{DIRECTORY_FD}"))
        .credentials(user.uid, user.gid, Vec::new())
        .no_new_privs()
        // A group of its own, to be ended with all that it may have started.
        .setsid()
        .umask(0o077)
        .rlimit(Resource::RLIMIT_AS, limits.memory_bytes_max)
        .rlimit(Resource::RLIMIT_CPU, limits.cpu_s_max)
        .rlimit(Resource::RLIMIT_FSIZE, limits.file_bytes_max)
        .rlimit(Resource::RLIMIT_NOFILE, files_max)
        .rlimit(Resource::RLIMIT_CORE, 0)
        .spawn()
        .map_err(|source| SandboxError::Start { program: program.to_string(), source })?;
    let output = std::thread::spawn(move || drain(output));
    let errors = std::thread::spawn(move || drain(errors));
    let exit = await_end(program, &child, limits.timeout, flag);
    if exit.is_err() {
        // Not reaped yet, so the number is still its own.
        killpg(Pid::from_raw(child.pid()), Signal::SIGKILL).map_err(|errno| follow(errno.into()))?;
        child.wait(REAP_TIMEOUT).map_err(|error| follow(error.into()))?;
    }
    let output = output.join().unwrap_or_default();
    let complaint = String::from_utf8_lossy(&errors.join().unwrap_or_default()).trim().to_string();
    match exit? {
        Exit::Code(0) => Ok(output),
        exit => Err(refused(program, exit, &complaint)),
    }
}

/// Waits for the end, until its time is over or it is not wanted any more.
fn await_end(program: &str, child: &Child, timeout: Duration, flag: &StopFlag) -> Result<Exit, SandboxError> {
    let deadline = Instant::now() + timeout;
    loop {
        let exit = child
            .wait(POLL)
            .map_err(|error| SandboxError::Follow { program: program.to_string(), source: error.into() })?;
        match exit {
            Some(exit) => return Ok(exit),
            None if flag.is_set() => return Err(SandboxError::Cancelled),
            None if Instant::now() >= deadline => {
                return Err(SandboxError::Timeout { program: program.to_string(), timeout });
            }
            None => {}
        }
    }
}

fn refused(program: &str, exit: Exit, complaint: &str) -> SandboxError {
    let complaint = match (complaint.is_empty(), exit) {
        (true, Exit::Signal(signal)) => format!("it was killed by signal {signal}"),
        (true, _) => "it gave no reason".to_string(),
        (false, _) => complaint.chars().filter(|c| !c.is_control()).take(COMPLAINT_CHARS_MAX).collect(),
    };
    let code = match exit {
        Exit::Code(code) => Some(code),
        _ => None,
    };
    SandboxError::Refused { program: program.to_string(), code, complaint }
}

fn drain(pipe: impl Read) -> Vec<u8> {
    let mut content = Vec::new();
    // What could be read is all there is; the exit code tells the rest.
    let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut content);
    content
}
