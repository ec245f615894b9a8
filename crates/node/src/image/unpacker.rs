//! A program that undoes a format in which strangers send files, and whose output is read: as nobody, with little memory and
//! nothing to open.
//!
//! Such formats are decoded by libraries in C, which have had holes and worse. The program sees the file that was sent as its
//! standard input and writes to a pipe.

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
/// `nobody`.
const NOBODY: u32 = 65534;

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
    /// What is wrong where it is not installed, and the way out.
    pub missing: &'static str,
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
    pub(super) fn start(program: Program<'_>, input: impl Into<OwnedFd>) -> io::Result<Self> {
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
            .credentials(NOBODY, NOBODY, Vec::new())
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
            SpawnError::NotFound { .. } => io::Error::other(program.missing),
            error => io::Error::other(error),
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
            missing: "none",
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

    #[test]
    fn it_is_nobody_and_alone() {
        let (plain, _) = run("id -u; wc -l </proc/net/dev; ls /proc/self/fd");
        let text = String::from_utf8(plain).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["65534", "3"], "nobody, with two lines of head and the loopback device");
        assert!(lines[2..].iter().all(|fd| ["0", "1", "2", "3"].contains(fd)), "nothing open: {text}");
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
            missing: "it is not installed here",
        };
        let error = Unpacker::start(program, File::open("/dev/null").expect("opened")).expect_err("missing");
        assert_eq!(error.to_string(), "it is not installed here");
    }
}
