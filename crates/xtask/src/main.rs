//! `cargo xtask tidy`: checks the house rules and tells each place that breaks one.

use std::process::ExitCode;

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    match command.as_deref() {
        None | Some("tidy") => tidy(),
        Some(other) => {
            eprintln!("there is no task {other:?}; there is: tidy");
            ExitCode::from(2)
        }
    }
}

fn tidy() -> ExitCode {
    match xtask::tidy::check(&xtask::tidy::root()) {
        Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
        Ok(broken) => {
            for place in &broken {
                eprintln!("{place}");
            }
            eprintln!("{} places break a house rule (CONTRIBUTING.md)", broken.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the house could not be read: {error}");
            ExitCode::FAILURE
        }
    }
}
