//! The roles of this crate alone, for its tests: what `holm shim` and `holm guest` run.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    match arguments.peek().and_then(|role| role.to_str()) {
        Some("guest") => node::container::machine::guest::main(),
        // A guest starts it as it does the whole program.
        Some("shim") => node::container::shim::main(arguments.skip(1)),
        _ => node::container::shim::main(arguments),
    }
}
