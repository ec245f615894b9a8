//! The roles of this crate alone, for its tests: what `holm shim`, `holm nursery` and `holm guest` run.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|role| role.to_str()) {
        Some("shim") => node::container::shim::main(arguments),
        Some("nursery") => node::container::shim::nursery::main(),
        Some("guest") => node::container::machine::guest::main(arguments),
        _ => ExitCode::from(2),
    }
}
