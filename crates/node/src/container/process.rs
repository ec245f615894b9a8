//! Starts processes in a pod: the first one of a container, and further ones beside it (exec).
//!
//! ```text
//! shim ──fork──▶ gate: joins the pod's namespaces (exec: the container's), becomes root inside
//!                 └──clone (as the shim's child, new pid and mount namespace for a first process)──▶ program
//! shim ◀─ id of the program's process ── gate (ends)
//! shim ── after adding it to the cgroup: go ──▶ program: mounts, terminal, limits, user, capabilities, filter, exec
//! ```
//!
//! Both kinds end in the same function, [`become_program`], so an exec can never have more powers than the container.
//! Measured against libcontainer 0.7, which this replaces: its exec neither loads the filter nor joins the user
//! namespace, so exec had to be written in any case; it compiles the filter anew in every start (14 of 27 ms) with no
//! place to load a ready one; and it cannot mount layers with shifted ids.

use super::{
    bundle::{Container, DEFAULT_PATH, Pod, Process},
    cgroup::PodGroup,
    holder::Holder,
    init, root,
    user::Identity,
};
use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixDatagram,
    },
    path::Path,
    time::Duration,
};
use sys::{
    fdpass,
    jail::{
        filter::{self, Instruction},
        privilege,
        process::{self, Fork, namespace},
    },
};

/// Longest wait for a step of a child that is being set up.
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes of an error that a child tells.
const REPORT_BYTES_MAX: usize = 4096;

/// Why a program does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program itself cannot be run: missing (127) or not executable (126), as shells number it.
    #[error("{message}")]
    Program {
        /// Exit code to tell.
        code: i32,
        /// What is wrong.
        message: String,
    },
    /// The confinement could not be made.
    #[error("cannot set up the container: {0}")]
    Setup(String),
    /// A step of the shim failed.
    #[error("cannot {operation}")]
    Io {
        /// The step.
        operation: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// Exit code that stands for this failure: 125 is a failure of the runtime, as docker numbers it.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Program { code, .. } => *code,
            Self::Setup(_) | Self::Io { .. } => 125,
        }
    }
}

pub(super) fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Io { operation, source }
}

/// Namespaces that the containers of a pod share, held open by the shim.
#[derive(Debug)]
pub struct PodNamespaces {
    /// Ids.
    pub user: OwnedFd,
    pub(super) uts: OwnedFd,
    pub(super) ipc: OwnedFd,
    /// Whose processes they are, where containers share these.
    holder: Option<Holder>,
}

impl PodNamespaces {
    /// Makes the namespaces below the user namespace that owns the pod's network, with the pod's host name in them.
    pub fn create(pod: &Pod, network: BorrowedFd<'_>, group: &PodGroup) -> Result<Self, StartError> {
        let made = Self::make(pod, network)?;
        match pod.share_processes {
            false => Ok(made),
            true => Ok(Self { holder: Some(Holder::start(pod, &made, group)?), ..made }),
        }
    }

    /// Ends what holds the processes of its containers, all of which are gone.
    pub fn end(&mut self) {
        self.holder = None;
    }

    fn make(pod: &Pod, network: BorrowedFd<'_>) -> Result<Self, StartError> {
        let user = sys::userns::owner(network)
            .map_err(|error| failed("find the pod's user namespace")(error.into()))?;
        let (ours, theirs) = pair().map_err(failed("make a socket pair"))?;
        let pid = Fork::default()
            .spawn(|| {
                let closed = privilege::close_others(3, &[theirs.as_raw_fd(), user.as_raw_fd()]);
                let made = closed
                    .and_then(|()| process::join(user.as_fd(), namespace::USER))
                    .and_then(|()| process::unshare(namespace::UTS | namespace::IPC))
                    .and_then(|()| Ok(nix::unistd::sethostname(&pod.hostname)?));
                match made {
                    Ok(()) => report(&theirs, b'R', 0, ""),
                    Err(error) => report(&theirs, b'E', 125, &format!("make the pod's namespaces: {error}")),
                }
                // Holds the namespaces until the shim has opened them, or has ended.
                let _ = theirs.recv(&mut [0]);
                0
            })
            .map_err(failed("fork"))?;
        drop(theirs);
        let opened = match receive(&ours) {
            Ok(Message::Ready) => Self::open(pid, user),
            Ok(other) => Err(other.unexpected()),
            Err(error) => Err(error),
        };
        drop(ours);
        process::wait(pid, true).map_err(failed("collect a child"))?;
        opened
    }

    fn open(pid: i32, user: OwnedFd) -> Result<Self, StartError> {
        let open = |kind: &str| {
            fs::File::open(format!("/proc/{pid}/ns/{kind}"))
                .map(OwnedFd::from)
                .map_err(failed("open a namespace"))
        };
        Ok(Self { user, uts: open("uts")?, ipc: open("ipc")?, holder: None })
    }
}

/// What a program is started with, looked up beforehand so that the child only acts.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Powers and terminal; its argv, env, user and working directory are those of the container.
    pub process: &'a Process,
    /// Program and arguments.
    pub argv: &'a [String],
    /// Environment.
    pub env: &'a [(String, String)],
    /// Working directory.
    pub cwd: &'a Path,
    /// Ids inside.
    pub identity: &'a Identity,
    /// A terminal of the container's own becomes the three standard streams.
    pub tty: bool,
    /// Rows and columns that the program finds there.
    pub terminal_size: Option<(u16, u16)>,
    /// The standard streams without a terminal.
    pub stdio: [RawFd; 3],
    /// The system call filter.
    pub filter: &'a [Instruction],
}

/// A started program.
#[derive(Debug)]
pub struct Started {
    /// Process id on this host; a child of the shim.
    pub pid: i32,
    /// Its handle.
    pub pidfd: OwnedFd,
    /// The near end of its terminal.
    pub terminal: Option<OwnedFd>,
}

/// Where a program is started.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In new pid, mount and cgroup namespaces: the first process of a container.
    New {
        /// The pod.
        pod: &'a Pod,
        /// The container.
        container: &'a Container,
        /// What the pod shares.
        shared: &'a PodNamespaces,
    },
    /// Beside the process that this handle names.
    Beside(BorrowedFd<'a>),
}

/// Starts a program. `admit` puts its process (by id) under the limits before it does anything.
pub fn start(
    place: Place<'_>,
    launch: &Launch<'_>,
    admit: impl FnOnce(i32) -> io::Result<()>,
) -> Result<Started, StartError> {
    let (ours, theirs) = pair().map_err(failed("make a socket pair"))?;
    let gate = Fork::default()
        .spawn(|| {
            let keep = [theirs.as_raw_fd()].into_iter().chain(launch.stdio).chain(place.descriptors());
            let closed = privilege::close_others(3, &keep.collect::<Vec<_>>());
            match closed
                .map_err(|error| format!("close files: {error}"))
                .and_then(|()| pass_gate(place, launch, &theirs))
            {
                Ok(()) => 0,
                Err(message) => {
                    report(&theirs, b'E', 125, &message);
                    1
                }
            }
        })
        .map_err(failed("fork"))?;
    drop(theirs);
    let first = receive(&ours);
    process::wait(gate, true).map_err(failed("collect a child"))?;
    let pid = match first? {
        Message::Pid(pid) => pid,
        other => return Err(other.unexpected()),
    };
    let started = finish(&ours, pid, admit);
    if started.is_err() {
        // It may be anywhere in its setup; nothing of the program ran.
        if let Ok(pidfd) = process::open_pidfd(pid) {
            let _ = process::signal_pidfd(pidfd.as_fd(), libc::SIGKILL);
        }
        let _ = process::wait(pid, true);
    }
    started
}

impl Place<'_> {
    /// Whether a small init comes before the program. What holds the processes of several containers is one already.
    fn has_init(&self, launch: &Launch<'_>) -> bool {
        matches!(self, Self::New { shared, .. } if launch.process.init && shared.holder.is_none())
    }

    fn descriptors(&self) -> Vec<RawFd> {
        match self {
            Self::New { shared, .. } => {
                let all = [&shared.user, &shared.uts, &shared.ipc].map(AsRawFd::as_raw_fd);
                all.into_iter().chain(shared.holder.iter().map(|it| it.namespace.as_raw_fd())).collect()
            }
            Self::Beside(pidfd) => vec![pidfd.as_raw_fd()],
        }
    }
}

/// The shim's side after the process exists.
fn finish(
    child: &UnixDatagram,
    pid: i32,
    admit: impl FnOnce(i32) -> io::Result<()>,
) -> Result<Started, StartError> {
    let pidfd = process::open_pidfd(pid).map_err(failed("open the new process"))?;
    admit(pid).map_err(failed("put the new process into its cgroup"))?;
    child.send(b"G").map_err(failed("let the new process go on"))?;
    let mut terminal = None;
    loop {
        match receive(child)? {
            Message::Terminal(fd) => terminal = Some(fd),
            Message::Ready => break,
            other => return Err(other.unexpected()),
        }
    }
    // The socket closes when the program is run; a message means that it could not be.
    match receive(child)? {
        Message::Closed => Ok(Started { pid, pidfd, terminal }),
        other => Err(other.unexpected()),
    }
}

/// Joins the pod and makes the program's process, which becomes a child of the shim.
fn pass_gate(place: Place<'_>, launch: &Launch<'_>, shim: &UnixDatagram) -> Result<(), String> {
    let text = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    if place.has_init(launch) {
        init::take_name();
    }
    // Nobody inside may look into this process while it still is the shim's copy.
    privilege::set_dumpable(false).map_err(text("hide the process"))?;
    let namespaces = match place {
        Place::New { shared, .. } => {
            for (handle, kind) in [
                (&shared.user, namespace::USER),
                (&shared.uts, namespace::UTS),
                (&shared.ipc, namespace::IPC),
            ] {
                process::join(handle.as_fd(), kind).map_err(text("join the pod"))?;
            }
            match &shared.holder {
                None => namespace::PID | namespace::MOUNT,
                Some(holder) => {
                    process::join(holder.namespace.as_fd(), namespace::PID).map_err(text("join the pod"))?;
                    namespace::MOUNT
                }
            }
        }
        Place::Beside(pidfd) => {
            let kinds = namespace::USER
                | namespace::MOUNT
                | namespace::PID
                | namespace::UTS
                | namespace::IPC
                | namespace::CGROUP;
            process::join(pidfd, kinds).map_err(text("join the container"))?;
            0
        }
    };
    let pid = Fork { namespaces, sibling: true, cgroup: None }
        .spawn(|| {
            let Err((code, message)) = become_program(place, launch, shim);
            report(shim, b'E', code, &message);
            1
        })
        .map_err(text("make the process"))?;
    report(shim, b'P', pid, "");
    Ok(())
}

/// The program's process, up to exec. Comes back only with an error: an exit code and a text.
fn become_program(
    place: Place<'_>,
    launch: &Launch<'_>,
    shim: &UnixDatagram,
) -> Result<std::convert::Infallible, (i32, String)> {
    let fail = |what: &'static str| move |error: io::Error| (125, format!("{what}: {error}"));
    let _ = shim.set_read_timeout(None);
    nix::unistd::setsid().map_err(io::Error::from).map_err(fail("make a session"))?;
    let mut one_group_tree = false;
    let told = |error: root::RootError| (125, root::told(&error));
    if let Place::New { pod, container, .. } = place {
        one_group_tree = root::has_one_group_tree();
        // Being put under limits takes the kernel some milliseconds, which are not waited for in vain.
        root::mount_inside(pod, container).map_err(told)?;
    } else {
        privilege::set_ids(0, 0, &[]).map_err(fail("become root inside"))?;
    }
    let mut go = [0];
    if !matches!(shim.recv(&mut go), Ok(1)) {
        return Err((125, "the shim ended".into()));
    }
    if let Place::New { container, .. } = place {
        process::unshare(namespace::CGROUP).map_err(fail("make a cgroup namespace"))?;
        // An init has a part of the tree that it sorts its services in.
        if one_group_tree || container.system.is_some() {
            root::mount_control_groups(container).map_err(told)?;
        }
    }
    privilege::set_dumpable(false).map_err(fail("hide the process"))?;
    privilege::new_session_keyring().map_err(fail("make a keyring"))?;
    take_streams(place, launch, shim).map_err(fail("connect the standard streams"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let (soft, hard) = launch.process.open_files;
    privilege::set_limit_clamped(libc::RLIMIT_NOFILE, soft, hard).map_err(fail("limit open files"))?;
    privilege::set_limit_clamped(libc::RLIMIT_CORE, 0, u64::MAX).map_err(fail("limit core files"))?;
    for (resource, soft, hard) in &launch.process.ulimits {
        privilege::set_limit_clamped(*resource, *soft, *hard).map_err(fail("set a limit"))?;
    }
    privilege::reset_signals().map_err(fail("reset signals"))?;
    privilege::close_on_exec_from(3).map_err(fail("close files"))?;
    let program = Program::new(launch)?;
    enter_directory(launch.cwd)?;
    if place.has_init(launch) {
        init::hold().map_err(fail("hold signals"))?;
        let child = Fork::default().spawn(|| {
            let Err((code, message)) = run_below_init(&program, launch, shim);
            report(shim, b'E', code, &message);
            1
        });
        let child = child.map_err(fail("make the program's process"))?;
        give_up_powers(launch)?;
        // The shim sees that the program runs when nobody has this socket any more.
        privilege::close_others(3, &[]).map_err(fail("close files"))?;
        sys::jail::init::leave(init::serve(Some(child)));
    }
    give_up_powers(launch)?;
    report(shim, b'R', 0, "");
    Err(program.run())
}

/// The program's process where an init is the first one. It leads a group of its own, as a shell would have it.
fn run_below_init(
    program: &Program,
    launch: &Launch<'_>,
    shim: &UnixDatagram,
) -> Result<std::convert::Infallible, (i32, String)> {
    sys::jail::init::lead_terminal();
    privilege::reset_signals().map_err(|error| (125, format!("reset signals: {error}")))?;
    give_up_powers(launch)?;
    report(shim, b'R', 0, "");
    Err(program.run())
}

/// Ids, capabilities, no_new_privs and the filter, in the one order that works.
fn give_up_powers(launch: &Launch<'_>) -> Result<(), (i32, String)> {
    let fail = |what: &'static str| move |error: io::Error| (125, format!("{what}: {error}"));
    let Identity { uid, gid, groups, .. } = launch.identity;
    let powers = launch.process.capabilities.mask();
    if !launch.process.no_new_privileges {
        // Without no_new_privs, loading a filter needs a capability that is about to go.
        filter::load(launch.filter).map_err(fail("load the filter"))?;
    }
    privilege::bound_capabilities(powers).map_err(fail("bound capabilities"))?;
    privilege::set_ids(*uid, *gid, groups).map_err(fail("become the user"))?;
    privilege::set_capabilities(if *uid == 0 { powers } else { 0 }).map_err(fail("set capabilities"))?;
    // Changing ids made it look like a setuid program's; it is the container's own process from here on.
    if launch.process.no_new_privileges {
        privilege::set_no_new_privileges().map_err(fail("set no_new_privs"))?;
        filter::load(launch.filter).map_err(fail("load the filter"))?;
    }
    Ok(())
}

/// A directory that is not below the container's root is refused: it would be a way out.
fn enter_directory(cwd: &Path) -> Result<(), (i32, String)> {
    std::env::set_current_dir(cwd).map_err(|error| {
        (126, format!("cannot change to the working directory {}: {error}", cwd.display()))
    })?;
    match std::env::current_dir() {
        Ok(here) if here.is_absolute() => Ok(()),
        _ => Err((126, format!("the working directory {} is outside the container", cwd.display()))),
    }
}

/// Gives the pipes that a program gets to its user, so that it may open `/dev/stdout` as well as write to what it has: images
/// lead their servers' log files there. What is no pipe belongs to others too.
///
/// # Errors
/// The system refuses.
pub fn give_pipes(stdio: [RawFd; 3], host_uid: u32) -> io::Result<()> {
    for fd in stdio {
        let kind = nix::sys::stat::fstat(borrow(fd))?.st_mode & libc::S_IFMT;
        if kind == libc::S_IFIFO {
            nix::unistd::fchown(borrow(fd), Some(nix::unistd::Uid::from_raw(host_uid)), None)?;
        }
    }
    Ok(())
}

/// Makes a terminal of the container's own, or takes the streams that the shim made.
fn take_streams(place: Place<'_>, launch: &Launch<'_>, shim: &UnixDatagram) -> io::Result<()> {
    if !launch.tty {
        // First out of the way of 0 to 2, so that none is overwritten before it is used.
        let mut copies = Vec::new();
        for fd in launch.stdio {
            copies.push(nix::fcntl::fcntl(borrow(fd), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(10))?);
        }
        for (number, copy) in copies.into_iter().enumerate() {
            privilege::place(copy, number as RawFd)?;
        }
        return Ok(());
    }
    let near = fs::File::options().read(true).write(true).open("/dev/ptmx")?;
    let far = privilege::terminal_peer(near.as_raw_fd())?;
    let owner = nix::unistd::Uid::from_raw(launch.identity.uid);
    let _ = nix::unistd::fchown(&far, Some(owner), None);
    if let Some((rows, columns)) = launch.terminal_size {
        privilege::set_terminal_size(far.as_raw_fd(), rows, columns)?;
    }
    // An init hands its console on to who logs in there, so it must not be its own.
    let is_init = matches!(place, Place::New { container, .. } if container.system.is_some());
    if !is_init {
        privilege::take_terminal(far.as_raw_fd())?;
    }
    fdpass::send(shim, b"M", &[near.as_fd()]).map_err(io::Error::from)?;
    for number in 0..3 {
        privilege::place(far.as_raw_fd(), number)?;
    }
    if matches!(place, Place::New { .. }) {
        show_console()?;
    }
    Ok(())
}

/// `/dev/console` is the first process's terminal.
fn show_console() -> io::Result<()> {
    use sys::jail::tree;
    let terminal = nix::unistd::ttyname(io::stdin())?;
    let copy = tree::clone_path(&terminal, false)?;
    let console = fs::File::options().read(true).open("/dev/console")?;
    tree::attach(copy.as_fd(), console.as_fd())
}

fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    sys::jail::process::borrowed(fd)
}

/// What exec needs, made while memory may still be had.
struct Program {
    name: String,
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    fn new(launch: &Launch<'_>) -> Result<Self, (i32, String)> {
        let text = |text: String| {
            CString::new(text).map_err(|_| (125, "an argument or variable holds a NUL character".to_string()))
        };
        let mut env = launch.env.to_vec();
        if !env.iter().any(|(key, _)| key == "HOME") {
            env.push(("HOME".into(), launch.identity.home.clone()));
        }
        let path =
            env.iter().find(|(key, _)| key == "PATH").map_or(DEFAULT_PATH, |(_, value)| value.as_str());
        let name = launch.argv.first().cloned().unwrap_or_default();
        let candidates = if name.contains('/') {
            vec![name.clone()]
        } else {
            path.split(':')
                .map(|directory| format!("{}/{name}", if directory.is_empty() { "." } else { directory }))
                .collect()
        };
        Ok(Self {
            candidates: candidates.into_iter().map(text).collect::<Result<_, _>>()?,
            argv: launch.argv.iter().cloned().map(text).collect::<Result<_, _>>()?,
            env: env
                .into_iter()
                .map(|(key, value)| text(format!("{key}={value}")))
                .collect::<Result<_, _>>()?,
            name,
        })
    }

    /// Runs the first candidate that can be run, as execvpe(3) does.
    fn run(&self) -> (i32, String) {
        let mut refused = None;
        for candidate in &self.candidates {
            let error = process::exec(candidate, &self.argv, &self.env);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                _ => refused = refused.or(Some(error)),
            }
        }
        match refused {
            None if self.candidates.len() == 1 => {
                (127, format!("{}: no such file in the container", self.name))
            }
            None => (127, format!("{}: not found in the container's PATH", self.name)),
            Some(error) => (126, format!("{}: cannot be run: {error}", self.name)),
        }
    }
}

/// What a child tells: a kind, a number and a text or a descriptor.
pub(super) enum Message {
    Pid(i32),
    Terminal(OwnedFd),
    Ready,
    Closed,
    Failed(i32, String),
}

impl Message {
    pub(super) fn unexpected(self) -> StartError {
        match self {
            Self::Failed(125, message) => StartError::Setup(message),
            Self::Failed(code, message) => StartError::Program { code, message },
            _ => StartError::Setup("the new process ended while it was set up".into()),
        }
    }
}

pub(super) fn report(socket: &UnixDatagram, kind: u8, number: i32, text: &str) {
    let mut message = vec![kind];
    message.extend(number.to_le_bytes());
    message.extend(text.bytes().take(REPORT_BYTES_MAX - 8));
    // Nobody is left to tell when this fails.
    let _ = socket.send(&message);
}

pub(super) fn receive(socket: &UnixDatagram) -> Result<Message, StartError> {
    let mut buffer = [0; REPORT_BYTES_MAX];
    let received = fdpass::receive(socket, &mut buffer, 1)
        .map_err(|error| failed("hear from the new process")(io::Error::from(error)))?;
    let message = &buffer[..received.length];
    let number =
        message.get(1..5).map_or(0, |bytes| i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    Ok(match message.first() {
        None => Message::Closed,
        Some(b'P') => Message::Pid(number),
        Some(b'R') => Message::Ready,
        Some(b'M') => match received.descriptors.into_iter().next() {
            Some(fd) => Message::Terminal(fd),
            None => Message::Failed(125, "no terminal came".into()),
        },
        _ => Message::Failed(
            number,
            String::from_utf8_lossy(message.get(5..).unwrap_or_default()).into_owned(),
        ),
    })
}

/// Two connected sockets that keep messages apart and tell when the other end is closed; waiting has a deadline.
pub(super) fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let (ours, theirs) = (UnixDatagram::from(ours), UnixDatagram::from(theirs));
    ours.set_read_timeout(Some(SETUP_TIMEOUT))?;
    Ok((ours, theirs))
}
