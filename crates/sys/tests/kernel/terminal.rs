//! Terminals: size, raw mode that ends with its guard, and a program that believes in its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{LocalFlags, tcgetattr};
use sys::spawn::{Command, Stdio};
use sys::terminal::{self, RawMode, Size};

#[test]
fn a_program_sees_a_terminal_of_the_size_given() {
    let pair = terminal::open_pair(Size { rows: 33, columns: 99 }).expect("a pair");
    let copy = || Stdio::Fd(pair.terminal.try_clone().expect("a copy"));
    let child = Command::new("/bin/sh")
        .args(["-c", "test -t 0 && test -t 1 && stty size && read word && echo got $word"]);
    let child = child.env("PATH", "/usr/bin:/bin").stdin(copy()).stdout(copy()).stderr(copy()).setsid();
    let child = child.spawn().expect("spawned");
    drop(pair.terminal);
    let mut controller = File::from(pair.controller);
    controller.write_all(b"hello\n").expect("typed");
    let mut text = Vec::new();
    // When the last program has gone the kernel answers EIO: the end.
    let _ = controller.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("33 99\r\n") && text.contains("got hello\r\n"), "{text:?}");
    child.wait(std::time::Duration::from_secs(10)).expect("waited").expect("ended");
}

#[test]
fn size_and_raw_mode_are_set_and_given_back() {
    let pair = terminal::open_pair(Size::default()).expect("a pair");
    terminal::set_size(&pair.controller, Size { rows: 50, columns: 132 }).expect("set");
    assert_eq!(terminal::size(&pair.terminal).expect("got"), Size { rows: 50, columns: 132 });
    let echoes = || tcgetattr(&pair.terminal).expect("a mode").local_flags.contains(LocalFlags::ECHO);
    assert!(echoes());
    let guard = RawMode::enter(pair.terminal.as_fd()).expect("entered");
    assert!(!echoes());
    drop(guard);
    assert!(echoes());
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    assert!(terminal::size(&reader).is_err() && RawMode::enter(reader.as_fd()).is_err());
    assert!(!terminal::is_terminal(&reader) && terminal::is_terminal(&pair.controller));
}
