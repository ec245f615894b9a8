//! Starting programs exactly as described: who they are, where they are, and what they hold, and nothing inherited by
//! accident.
//!
//! The environment starts empty, signals are reset, and of the open files only those that were given reach the program.
//! The child outlives this process unless asked otherwise: a restarted daemon finds it again by pid and start time.
//!
//! ```text
//!  parent (many threads)                          child (copy of one thread, child.rs)
//!  prepare every string and number  ── clone3 ──▶ session, cgroup, namespaces, limits, ids, files
//!  read the report pipe             ◀── stage, errno ── (on failure only)
//!  end of file = exec succeeded     ◀──────────── exec
//! ```
//!
//! Must never allocate, lock or call into libc's thread machinery between clone and exec: another thread may hold any lock.

mod child;

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

use crate::cgroup::Entrance;
use crate::error::{Context, Error};
use crate::file::c_string;
use crate::netns::NetNs;
use crate::pidfd::{Exit, PidFd, process_start_time};

pub use child::Stage;

/// Why a program was not started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The child could not become what it should be.
    #[error("cannot start {program}: {stage}")]
    Child {
        /// The program.
        program: String,
        /// What failed in the child.
        stage: Stage,
        /// The errno.
        source: io::Error,
    },
    /// The program is not in any directory of `PATH`.
    #[error("cannot start {program}: no such program in PATH")]
    NotFound {
        /// The program.
        program: String,
    },
    /// The child could not be made.
    #[error(transparent)]
    System(#[from] Error),
}

/// One of the three standard streams.
#[derive(Debug, Default)]
pub enum Stdio {
    /// `/dev/null`.
    #[default]
    Null,
    /// The same as ours.
    Inherit,
    /// This file, socket or pipe.
    Fd(OwnedFd),
}

/// A program to start. Nothing happens until [`Command::spawn`].
#[derive(Debug)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    streams: [Stdio; 3],
    files: Vec<(RawFd, OwnedFd)>,
    credentials: Option<Credentials>,
    namespace: Option<NetNs>,
    cgroup: Vec<OwnedFd>,
    directory: Option<PathBuf>,
    umask: Option<u32>,
    limits: Vec<(Resource, u64)>,
    unshare: i32,
    new_session: bool,
    no_new_privileges: bool,
    dies_with_parent: bool,
}

/// Who a program is.
#[derive(Debug)]
enum Credentials {
    /// This user, in these groups.
    User { uid: u32, gid: u32, groups: Vec<u32> },
    /// User and group of this number and the process's own together.
    OfProcess { base: u32 },
}

/// Process ids are below this (`PID_MAX_LIMIT` of the kernel's include/linux/threads.h).
pub const PROCESS_IDS: u32 = 1 << 22;

/// A started program. Dropping this value does not end it, but leaves a zombie when it ends: somebody has to
/// [`Child::wait`], or to poll and reap the descriptor.
#[derive(Debug)]
pub struct Child {
    /// The open process.
    pub process: PidFd,
    /// With the pid, its name for good: see [`PidFd::open_started_at`].
    pub start_time: u64,
}

impl Child {
    /// The process's number.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Waits until the program ends, for at most `timeout`; `None` means that it still runs.
    pub fn wait(&self, timeout: Duration) -> Result<Option<Exit>, Error> {
        self.process.wait_exit(timeout)
    }
}

impl Command {
    /// A program by path, or by a name that is looked up in our `PATH` when it is started.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            streams: Default::default(),
            files: Vec::new(),
            credentials: None,
            namespace: None,
            cgroup: Vec::new(),
            directory: None,
            umask: None,
            limits: Vec::new(),
            unshare: 0,
            new_session: false,
            no_new_privileges: false,
            dies_with_parent: false,
        }
    }

    /// Adds an argument (the program's name comes before the first by itself).
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Command {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Command {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Adds a variable to the environment, which starts empty.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Command {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Where standard input comes from; `/dev/null` if not said.
    pub fn stdin(mut self, stream: Stdio) -> Command {
        self.streams[0] = stream;
        self
    }

    /// Where standard output goes; `/dev/null` if not said.
    pub fn stdout(mut self, stream: Stdio) -> Command {
        self.streams[1] = stream;
        self
    }

    /// Where standard error goes; `/dev/null` if not said.
    pub fn stderr(mut self, stream: Stdio) -> Command {
        self.streams[2] = stream;
        self
    }

    /// Gives the program an open file under this number (3 or more; a number given twice means the last file).
    pub fn fd(mut self, number: RawFd, file: impl Into<OwnedFd>) -> Command {
        self.files.retain(|(taken, _)| *taken != number);
        self.files.push((number, file.into()));
        self
    }

    /// Who the program is. A user other than root has no capability left, and can gain none: the bounding set is emptied.
    pub fn credentials(mut self, uid: u32, gid: u32, groups: impl Into<Vec<u32>>) -> Command {
        self.credentials = Some(Credentials::User { uid, gid, groups: groups.into() });
        self
    }

    /// The program is a user that no other process is: its user and group are `base` and its process id together, and it
    /// cannot start other processes, which could stay when it has ended and its number is given again. Nobody has to keep
    /// count, and a crash leaves nothing behind. Ids from `base` to `base + PROCESS_IDS` must be nobody else's.
    pub fn user_of_its_own(mut self, base: u32) -> Command {
        self.credentials = Some(Credentials::OfProcess { base });
        self.rlimit(Resource::RLIMIT_NPROC, 1)
    }

    /// In which network namespace it runs; ours if not said.
    pub fn netns(mut self, namespace: &NetNs) -> Command {
        self.namespace = Some(namespace.clone());
        self
    }

    /// In which control group it runs, from its first instruction; ours if not said.
    pub fn cgroup(mut self, entrance: Entrance) -> Command {
        self.cgroup = entrance.into_files();
        self
    }

    /// Gives it a mount namespace of its own: mounts that it makes stay in it, mounts of ours still reach it.
    pub fn private_mounts(mut self) -> Command {
        self.unshare |= libc::CLONE_NEWNS;
        self
    }

    /// Gives it a namespace of its own for System V and POSIX message queues and shared memory.
    pub fn private_ipc(mut self) -> Command {
        self.unshare |= libc::CLONE_NEWIPC;
        self
    }

    /// Gives it a network namespace of its own with nothing in it, not even a loopback that is up.
    pub fn private_network(mut self) -> Command {
        self.unshare |= libc::CLONE_NEWNET;
        self
    }

    /// Makes it the leader of a new session without terminal, so that signals to our group do not reach it.
    pub fn setsid(mut self) -> Command {
        self.new_session = true;
        self
    }

    /// No program that it starts can gain privilege by set-uid bits or file capabilities.
    pub fn no_new_privs(mut self) -> Command {
        self.no_new_privileges = true;
        self
    }

    /// Kills it when the *thread* that spawns it ends (PR_SET_PDEATHSIG of prctl(2)): never from a pool of threads.
    pub fn die_with_parent(mut self) -> Command {
        self.dies_with_parent = true;
        self
    }

    /// Sets a limit, soft and hard, or as near to it as our own hard limit lets us.
    pub fn rlimit(mut self, resource: Resource, limit: u64) -> Command {
        self.limits.retain(|(taken, _)| *taken != resource);
        self.limits.push((resource, limit));
        self
    }

    /// The permission bits that new files do not get.
    pub fn umask(mut self, mask: u32) -> Command {
        self.umask = Some(mask);
        self
    }

    /// The working directory; ours if not said. It is entered as the user that the program runs as.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Command {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Starts the program and returns when it runs: a program that cannot be executed is an error here, not an exit code.
    pub fn spawn(self) -> Result<Child, SpawnError> {
        let program = find_program(&self.program)?;
        let name = program.display().to_string();
        let plan = self.prepare(&program)?;
        let (mut report, report_writer) = report_pipe(plan.number_max())?;
        let process = child::start(&plan, &report_writer, &name)?;
        drop(report_writer);
        let mut bytes = Vec::new();
        report.read_to_end(&mut bytes).context("read report of", &name)?;
        let Some((stage, errno)) = child::decode(&bytes) else {
            let start_time = process_start_time(process.pid())?
                .ok_or_else(|| Error::invalid("find", &name, "somebody else has reaped the child"))?;
            return Ok(Child { process, start_time });
        };
        process.wait_exit(Duration::from_secs(10))?;
        Err(SpawnError::Child { program: name, stage, source: io::Error::from_raw_os_error(errno) })
    }

    /// Makes everything that needs memory before the clone.
    fn prepare(self, program: &Path) -> Result<child::Plan, Error> {
        let mut argv = vec![c_string(self.program.as_bytes())?];
        for argument in &self.arguments {
            argv.push(c_string(argument.as_bytes())?);
        }
        let mut envp = Vec::new();
        for (key, value) in &self.environment {
            envp.push(c_string(&[key.as_bytes(), b"=", value.as_bytes()].concat())?);
        }
        let directory: Option<CString> = self
            .directory
            .as_ref()
            .map(|directory| c_string(directory.as_os_str().as_bytes()))
            .transpose()?;
        let limits = self
            .limits
            .iter()
            .map(|(resource, limit)| clamped(*resource, *limit))
            .collect::<Result<_, _>>()?;
        let files = lift(self.streams, self.files)?;
        let plan = child::Plan {
            program: c_string(program.as_os_str().as_bytes())?,
            argv: child::Strings::new(argv),
            envp: child::Strings::new(envp),
            files,
            credentials: self.credentials,
            namespace: self.namespace,
            cgroup: self.cgroup,
            directory,
            umask: self.umask,
            limits,
            unshare: self.unshare,
            new_session: self.new_session,
            no_new_privileges: self.no_new_privileges,
            dies_with_parent: self.dies_with_parent,
        };
        Ok(plan)
    }
}

/// A path is taken as it is; a name is looked up in our `PATH`.
fn find_program(program: &OsStr) -> Result<PathBuf, SpawnError> {
    if program.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| SpawnError::NotFound { program: program.to_string_lossy().into_owned() })
}

/// No process may raise its hard limit, and root without CAP_SYS_RESOURCE is no exception.
fn clamped(resource: Resource, limit: u64) -> Result<(Resource, libc::rlimit64), Error> {
    let (_, hard) = getrlimit(resource).context("get resource limit", format!("{resource:?}"))?;
    let limit = limit.min(hard);
    Ok((resource, libc::rlimit64 { rlim_cur: limit, rlim_max: limit }))
}

/// Duplicates every file above all numbers that are asked for, so that the child can put each in its place without
/// overwriting another that it still needs.
fn lift(streams: [Stdio; 3], files: Vec<(RawFd, OwnedFd)>) -> Result<Vec<(RawFd, OwnedFd)>, Error> {
    if let Some((number, _)) = files.iter().find(|(number, _)| *number < 3) {
        return Err(Error::invalid("give descriptor", number, "numbers below 3 are the standard streams"));
    }
    let floor = files.iter().map(|(number, _)| *number).max().unwrap_or(2) + 1;
    let mut lifted = Vec::with_capacity(files.len() + 3);
    for (number, stream) in (0..).zip(streams) {
        let file = match stream {
            Stdio::Null => {
                let null = std::fs::File::options().read(true).write(true).open("/dev/null");
                duplicate(null.context("open", "/dev/null")?, floor)?
            }
            // SAFETY: the number is that of a standard stream; if it is closed, duplicating fails and nothing is borrowed.
            Stdio::Inherit => duplicate(unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }, floor)?,
            Stdio::Fd(file) => duplicate(file, floor)?,
        };
        lifted.push((number, file));
    }
    for (number, file) in files {
        lifted.push((number, duplicate(file, floor)?));
    }
    lifted.sort_by_key(|(number, _)| *number);
    Ok(lifted)
}

fn duplicate(file: impl AsFd, floor: RawFd) -> Result<OwnedFd, Error> {
    use nix::fcntl::{FcntlArg, fcntl};
    let number = fcntl(file.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(floor)).context("duplicate", "descriptor")?;
    // SAFETY: the kernel has just returned this descriptor, so it is open and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The pipe that the child reports a failure on; exec closes it. Its writing end is above all numbers that are asked for.
fn report_pipe(number_max: RawFd) -> Result<(io::PipeReader, OwnedFd), Error> {
    let (reader, writer) = io::pipe().context("make", "pipe")?;
    Ok((reader, duplicate(writer, number_max + 1)?))
}

impl child::Plan {
    fn number_max(&self) -> RawFd {
        self.files.iter().map(|(number, _)| *number).max().unwrap_or(2)
    }
}

/// The command line, for logs: arguments with anything unusual in them are quoted.
impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.program.to_string_lossy())?;
        for argument in &self.arguments {
            let text = String::from_utf8_lossy(argument.as_bytes());
            let plain = !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c));
            if plain { write!(f, " {text}")? } else { write!(f, " {text:?}")? }
        }
        Ok(())
    }
}

impl Command {
    /// The arguments so far, for golden files.
    pub fn argv(&self) -> Vec<String> {
        std::iter::once(&self.program)
            .chain(&self.arguments)
            .map(|argument| String::from_utf8_lossy(&argument.clone().into_vec()).into_owned())
            .collect()
    }
}
