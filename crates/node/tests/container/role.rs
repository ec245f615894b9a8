//! The shim's role alone, for the tests of this crate: what `holm shim` runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    node::container::shim::main(std::env::args_os().skip(1))
}
