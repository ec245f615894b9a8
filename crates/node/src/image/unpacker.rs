//! A program that undoes a format in which strangers send files, and whose output is read: as a user of its own, with little
//! memory and nothing to open.
//!
//! Such formats are decoded by libraries in C, which have had holes and worse. The program sees the file that was sent as its
//! standard input and writes to a pipe. One that a file has taken over can do nothing to those that read other files.

use crate::instance::PROGRAM_IDS_BASE;
use nix::sys::{resource::Resource, signal::Signal};
use std::{
    fs::File,
    io::{self, Read, Seek},
    os::fd::OwnedFd,
    time::Duration,
};
use sys::{
    pidfd::Exit,
    spawn::{Child, Command, SpawnError, Stdio},
};

/// Most bytes of its complaints; it is ended by more.
const COMPLAINTS_BYTES_MAX: u64 = 64 << 10;
/// Most bytes of its complaint that are told.
const COMPLAINT_BYTES_MAX: u64 = 1000;
/// A program whose pipe is closed, or that was killed, ends at once.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// What is run, and what it may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program<'a> {
    /// Its name.
    pub name: &'static str,
    /// What it is told.
    pub arguments: &'a [&'a str],
    /// What it calls its input at the beginning of a complaint.
    pub input: &'static str,
    /// Most bytes of address space.
    pub memory_bytes_max: u64,
    /// Most seconds of a processor's time, where a file could keep it busy without an end.
    pub cpu_s_max: Option<u64>,
    /// What its input is, for who reads that it is not installed: `compressed by xz`.
    pub form: &'static str,
    /// The Debian package that it comes with.
    pub package: &'static str,
}

/// A program that a file needs and this host has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is {form}, and the program {name} is not installed on this host (Debian package {package})")]
pub struct Missing {
    form: &'static str,
    name: &'static str,
    package: &'static str,
}

impl Missing {
    /// The way out.
    pub fn hint(&self) -> String {
        format!("on the host: `apt install {}`, then send it again", self.package)
    }
}

/// Why a program does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is not here.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// It could not be started.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The bytes that a program makes of a file.
#[derive(Debug)]
pub struct Unpacker {
    name: &'static str,
    input: &'static str,
    output: io::PipeReader,
    errors: File,
    child: Option<Child>,
}

impl Unpacker {
    /// Begins with a file at its present place, or with a pipe.
    ///
    /// # Errors
    /// The program is not here, or could not be started.
    pub(super) fn start(program: Program<'_>, input: impl Into<OwnedFd>) -> Result<Self, StartError> {
        let (output, far) = io::pipe()?;
        // A file, because nobody reads it before the end, and a full pipe would stop the program.
        let errors = tempfile::tempfile()?;
        let mut command = Command::new(program.name)
            .args(program.arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::Fd(input.into()))
            .stdout(Stdio::Fd(OwnedFd::from(far)))
            .stderr(Stdio::Fd(OwnedFd::from(errors.try_clone()?)))
            .current_dir("/")
            .user_of_its_own(PROGRAM_IDS_BASE)
            .no_new_privs()
            .private_network()
            .setsid()
            .rlimit(Resource::RLIMIT_AS, program.memory_bytes_max)
            .rlimit(Resource::RLIMIT_FSIZE, COMPLAINTS_BYTES_MAX)
            .rlimit(Resource::RLIMIT_CORE, 0);
        if let Some(seconds) = program.cpu_s_max {
            command = command.rlimit(Resource::RLIMIT_CPU, seconds);
        }
        let child = command.spawn().map_err(|error| match error {
            SpawnError::NotFound { .. } => {
                let Program { form, name, package, .. } = program;
                StartError::from(Missing { form, name, package })
            }
            error => io::Error::other(error).into(),
        })?;
        Ok(Self { name: program.name, input: program.input, output, errors, child: Some(child) })
    }

    /// The end of its output is the end of the file only if it says so.
    fn ended(&mut self) -> io::Result<()> {
        let Some(child) = self.child.take() else { return Ok(()) };
        let exit = child.wait(END_TIMEOUT)?;
        if exit == Some(Exit::Code(0)) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let _ = self.errors.rewind();
        let _ = (&self.errors).take(COMPLAINT_BYTES_MAX).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        let text = text.strip_prefix(self.input).unwrap_or(text);
        let text = match exit {
            Some(Exit::Signal(signal)) if text.is_empty() => format!("it was ended by signal {signal}"),
            _ => text.chars().filter(|c| !c.is_control()).collect(),
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} refuses it: {text}", self.name)))
    }
}

impl Read for Unpacker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.output.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.ended()?;
        }
        Ok(count)
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            // Nobody reads on. What does not die is no matter of ours.
            let _ = child.process.send_signal(Signal::SIGKILL);
            let _ = child.wait(END_TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> Unpacker {
        let arguments = ["-c", script];
        let program = Program {
            name: "sh",
            arguments: &arguments,
            input: "sh: ",
            memory_bytes_max: 64 << 20,
            cpu_s_max: Some(1),
            form: "a script",
            package: "dash",
        };
        Unpacker::start(program, File::open("/dev/null").expect("opened")).expect("started")
    }

    fn run(script: &str) -> (Vec<u8>, io::Result<()>) {
        let mut plain = Vec::new();
        let read = start(script).read_to_end(&mut plain).map(|_| ());
        (plain, read)
    }

    #[test]
    fn its_output_counts_only_when_it_ends_well() {
        let (plain, read) = run("printf plain");
        assert!(plain == b"plain" && read.is_ok());
        for (script, why) in [
            ("printf half; echo 'sh: it is broken' >&2; exit 1", "sh refuses it: it is broken"),
            ("kill -9 $$", "sh refuses it: it was ended by signal 9"),
            // Its time is over: SIGXCPU, or SIGKILL where it would go on.
            ("while :; do :; done", "sh refuses it: it was ended by signal"),
            // More to say than anybody wants to hear: SIGXFSZ.
            ("while :; do echo complaint >&2; done", "sh refuses it: complaint"),
        ] {
            let error = run(script).1.expect_err(script).to_string();
            assert!(error.starts_with(why), "{script}: {error}");
        }
    }

    fn said(script: &str) -> String {
        let (plain, read) = run(script);
        read.expect(script);
        String::from_utf8(plain).expect("text").trim().to_string()
    }

    #[test]
    fn it_may_do_nothing_and_has_nothing() {
        assert_eq!(said("exec wc -l </proc/net/dev"), "3", "two lines of head and the loopback device");
        let group: u32 = said("exec id -G").parse().expect("one group");
        assert!((PROGRAM_IDS_BASE..1 << 31).contains(&group), "{group}");
        let open = said("exec ls /proc/self/fd");
        assert!(open.lines().all(|fd| ["0", "1", "2", "3"].contains(&fd)), "nothing open: {open}");
        run("true & echo more").1.expect_err("no other process, which could stay when it has ended");
        let powers = said("exec grep -E '^(Cap|NoNewPrivs)' /proc/self/status");
        let none = |line: &str| line.ends_with("\t0000000000000000") || line == "NoNewPrivs:\t1";
        assert!(powers.lines().count() == 6 && powers.lines().all(none), "{powers}");
    }

    #[test]
    fn none_can_do_anything_to_another() {
        let mut one = start("echo here; exec sleep 60");
        one.read_exact(&mut [0; 5]).expect("it runs");
        let pid = one.child.as_ref().expect("runs").pid();
        let uid = |status: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a user");
            let ids: Vec<u32> = line.split_whitespace().map(|id| id.parse().expect("a number")).collect();
            assert!(ids.iter().all(|id| *id == ids[0]), "{line}");
            ids[0]
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        assert_eq!(uid(&status), PROGRAM_IDS_BASE + pid.cast_unsigned());
        assert_ne!(uid(&said("exec cat /proc/self/status")), uid(&status));
        // What a user may do to its own processes.
        for harm in [
            format!("kill -9 {pid}"),
            format!("kill -0 {pid}"),
            format!(": </proc/{pid}/environ"),
            format!("cd /proc/{pid}/fd"),
            format!(": >/proc/{pid}/oom_score_adj"),
        ] {
            run(&format!("{harm} && exit 0; exit 1")).1.expect_err(&harm);
        }
        assert!(one.child.as_ref().is_some_and(|child| child.wait(Duration::ZERO).expect("seen").is_none()));
    }

    #[test]
    fn who_reads_no_more_leaves_no_program() {
        let mut unpacker = start("while :; do echo more; done");
        unpacker.read_exact(&mut [0; 10]).expect("read");
        let pid = unpacker.child.as_ref().expect("runs").pid();
        drop(unpacker);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn what_is_missing_is_told() {
        let program = Program {
            name: "holm-has-no-such-program",
            arguments: &[],
            input: "",
            memory_bytes_max: 64 << 20,
            cpu_s_max: None,
            form: "a riddle",
            package: "riddles",
        };
        let error = Unpacker::start(program, File::open("/dev/null").expect("opened")).expect_err("missing");
        let StartError::Missing(missing) = error else { panic!("{error}") };
        assert_eq!(
            missing.to_string(),
            "it is a riddle, and the program holm-has-no-such-program is not installed on this host (Debian package riddles)"
        );
        assert!(missing.hint().contains("`apt install riddles`"));
    }
}
