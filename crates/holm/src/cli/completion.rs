//! Completion for shells, with live names: what stands behind TAB is asked of holm.
//!
//! The shell calls `COMPLETE=bash holm -- ...`; names come from the daemon that HOLM_SOCKET or HOLM_HOST point to,
//! within a second, or not at all.

use super::{
    connection::ConnectionArgs,
    failure::{Failure, Result},
    output,
};
use clap::{Parser, ValueEnum};
use clap_complete::{
    engine::{ArgValueCompleter, CompletionCandidate},
    env::Shells,
};
use hyper::Method;
use serde_json::Value;
use std::{ffi::OsStr, time::Duration};

/// Time for the names; a shell that hangs is worse than one without names.
const NAMES_TIMEOUT: Duration = Duration::from_secs(1);

/// Names of a collection of the API, as an extension of an argument.
pub fn names(collection: &'static str) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| candidates(collection, current))
}

/// Forms of the output, as an extension of an argument.
pub fn forms() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let begins = current.to_string_lossy().into_owned();
        let names = output::Format::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let fits = names.filter(|form| form.get_name().starts_with(&begins));
        fits.map(|form| CompletionCandidate::new(form.get_name().to_string())).collect()
    })
}

/// The environment's connection, read as the command line reads it.
#[derive(Debug, Parser)]
struct FromEnvironment {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn candidates(collection: &str, current: &OsStr) -> Vec<CompletionCandidate> {
    let begins = current.to_string_lossy().into_owned();
    let found = live_names(collection).unwrap_or_default();
    let fits = found.into_iter().filter(|(name, _)| name.starts_with(&begins));
    fits.map(|(name, help)| CompletionCandidate::new(name).help(help.map(Into::into))).collect()
}

fn live_names(collection: &str) -> Option<Vec<(String, Option<String>)>> {
    let args = FromEnvironment::try_parse_from(["holm"]).ok()?;
    let client = args.connection.client(std::env::var("HOLM_TOKEN").ok()).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let path = format!("/v1/{collection}");
    let answer = runtime.block_on(async {
        let call = client.call::<Value>(Method::GET, &path, None::<&()>, None);
        tokio::time::timeout(NAMES_TIMEOUT, call).await
    });
    let list = answer.ok()?.ok()?;
    let items = list["items"].as_array()?;
    let name = |item: &Value| {
        let help = item["phase"].as_str().or(item["state"].as_str()).or(item["description"].as_str());
        Some((item["name"].as_str()?.to_string(), help.map(str::to_string)))
    };
    Some(items.iter().filter_map(name).collect())
}

/// Which shell.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  echo 'source <(holm completion bash)' >> ~/.bashrc
  echo 'source <(holm completion zsh)' >> ~/.zshrc
  holm completion fish > ~/.config/fish/completions/holm.fish")]
pub struct CompletionArgs {
    /// bash, zsh or fish
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
    pub shell: String,
}

/// Prints the completion script of a shell.
///
/// # Errors
/// Standard output is gone.
pub fn print(args: &CompletionArgs) -> Result {
    let shells = Shells::builtins();
    let shell = shells
        .completer(&args.shell)
        .ok_or_else(|| Failure::usage(format!("there is no completion for {}", args.shell)))?;
    let mut script = vec![];
    shell
        .write_registration("COMPLETE", "holm", "holm", "holm", &mut script)
        .map_err(|e| Failure::local("cannot write the completion", &e))?;
    output::write(&script)
}
