//! One binary: the role is chosen before any thread exists.
//!
//! `holm shim` stays with one pod and must have a single thread; `holm serve` is the daemon; all else is the command
//! line, which talks to a daemon.

mod cli;
mod serve;
mod uninstall;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|role| role == "shim") {
        return node::container::shim::main(arguments);
    }
    cli::run()
}
