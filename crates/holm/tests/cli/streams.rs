//! Terminals and streams: what is typed arrives, and the terminal is given back on every way out.

use super::{fake, holm};
use nix::sys::{
    signal::{Signal, kill},
    termios::{LocalFlags, tcgetattr},
};
use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Stdio},
    time::{Duration, Instant},
};
use sys::terminal::{Pair, Size, open_pair};

struct Screen {
    pair: Pair,
    child: Child,
    shown: String,
}

impl Screen {
    /// A program whose standard streams are a terminal of ours.
    fn start(fake: &fake::Fake, arguments: &[&str]) -> Self {
        let pair = open_pair(Size { rows: 40, columns: 120 }).unwrap();
        let end = || Stdio::from(pair.terminal.try_clone().unwrap());
        let child = holm(&fake.socket, arguments).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { pair, child, shown: String::new() }
    }

    fn types(&self, keys: &[u8]) {
        File::from(self.pair.controller.try_clone().unwrap()).write_all(keys).unwrap();
    }

    /// Reads until a text was shown.
    fn wait_for(&mut self, text: &str) {
        let mut screen = File::from(self.pair.controller.try_clone().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut buffer = [0; 4096];
        while !self.shown.contains(text) {
            assert!(Instant::now() < deadline, "{text:?} was not shown: {:?}", self.shown);
            let count = screen.read(&mut buffer).unwrap();
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.pair.terminal).unwrap().local_flags.contains(LocalFlags::ICANON)
    }
}

#[test]
fn a_console_takes_keys_and_gives_the_terminal_back() {
    let fake = fake::start();
    let mut screen = Screen::start(&fake, &["console", "db"]);
    screen.wait_for("Ctrl-] leaves it");
    screen.wait_for("login: ");
    assert!(screen.is_raw());
    screen.types(b"root\x03");
    screen.wait_for("root\x03");
    screen.types(b"\x1d");
    assert!(screen.child.wait().unwrap().success());
    assert!(!screen.is_raw());
}

#[test]
fn a_signal_gives_the_terminal_back_too() {
    let fake = fake::start();
    let mut screen = Screen::start(&fake, &["console", "db"]);
    screen.wait_for("login: ");
    assert!(screen.is_raw());
    kill(nix::unistd::Pid::from_raw(screen.child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(screen.child.wait().unwrap().code(), Some(143));
    assert!(!screen.is_raw());
}

#[test]
fn exec_has_a_terminal_that_follows_the_size_of_ours() {
    let fake = fake::start();
    let mut screen = Screen::start(&fake, &["exec", "-it", "web", "--", "cat"]);
    screen.wait_for("40x120");
    assert!(screen.is_raw());
    sys::terminal::set_size(&screen.pair.controller, Size { rows: 50, columns: 132 }).unwrap();
    // Not our controlling terminal, so the kernel tells nobody: we do.
    kill(nix::unistd::Pid::from_raw(screen.child.id().cast_signed()), Signal::SIGWINCH).unwrap();
    screen.wait_for("50x132");
    screen.types(b"typed");
    screen.wait_for("typed");
    screen.child.kill().unwrap();
    screen.child.wait().unwrap();
}

#[test]
fn a_pipe_through_exec_arrives_whole_and_ends() {
    let fake = fake::start();
    let mut child = holm(&fake.socket, &["exec", "-i", "web", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let sent = vec![b'x'; 3_000_000];
    let mut stdin = child.stdin.take().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == sent, "{} of {} bytes", output.stdout.len(), sent.len());
}

#[test]
fn a_console_fed_by_a_pipe_ends_after_it() {
    let fake = fake::start();
    let mut child =
        holm(&fake.socket, &["console", "db"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "login: hello\n");
}
