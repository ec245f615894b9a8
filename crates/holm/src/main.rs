//! One binary: the role is chosen before any thread exists.
//!
//! `holm shim` stays with one pod and must have a single thread, as must `holm nursery`, which forks it, and `holm guest`, the
//! first process of a pod's machine; `holm serve` is the daemon; all else is the command line, which talks to a daemon.

mod cli;
mod serve;
mod uninstall;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|role| role.to_str()) {
        Some("shim") => node::container::shim::main(arguments),
        Some("nursery") => node::container::shim::nursery::main(),
        Some("guest") => node::container::machine::guest::main(arguments),
        _ => cli::run(),
    }
}
