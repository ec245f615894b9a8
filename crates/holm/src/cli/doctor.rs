//! `holm doctor`: looks at this machine before anything is changed, and says what is missing and the way out.
//!
//! Each check is one line: `ok`, `warn` (something works less well) or `fail` (holm cannot work). What can only be known
//! by trying is tried inside a namespace that is gone at once; nothing of the host is changed, and no daemon is needed.

mod firewall;
mod guests;
mod machine;
mod network;

use super::{
    connection::{ConnectionArgs, SOCKET_DEFAULT},
    failure::{Failure, Result},
    output::{self, Cell, Column, Format, Printer, Shown, column},
    session::colours_on,
    wording::counted,
};
use jiff::Timestamp;
use serde::Serialize;
use std::path::PathBuf;

/// What to look at.
#[derive(Debug, Clone, clap::Args)]
pub struct DoctorArgs {
    /// Directory where the daemon is to keep its state
    #[arg(
        long,
        value_name = "DIR",
        env = "HOLM_STATE",
        default_value = "/var/lib/holm",
        hide_env_values = true
    )]
    pub state: PathBuf,
    /// Range of floating IPs that the daemon is to use
    #[arg(
        long,
        value_name = "CIDR",
        env = "HOLM_EXTERNAL",
        default_value = "172.31.240.0/22",
        hide_env_values = true
    )]
    pub external: ipnet::IpNet,
    /// Prefix of kernel names that the daemon is to use
    #[arg(long, value_name = "NAME", env = "HOLM_PREFIX", default_value = "holm", hide_env_values = true)]
    pub prefix: String,
}

/// How good a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// holm works, and something of it works less well.
    Warn,
    /// holm cannot work.
    Fail,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How good it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do; empty where nothing needs doing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Finding {
    /// As it should be.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, found: found.into(), hint: String::new() }
    }

    /// Works less well.
    pub fn warn(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, level: Level::Warn, found: found.into(), hint: hint.into() }
    }

    /// Cannot work.
    pub fn fail(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, level: Level::Fail, found: found.into(), hint: hint.into() }
    }
}

impl Shown for Finding {
    const COLUMNS: &'static [Column<Self>] = &[
        column("LEVEL", |f| Cell::text(level_word(f.level))),
        column("CHECK", |f| Cell::text(f.name)),
        column("FOUND", |f| Cell::text(&f.found)),
        column("WAY OUT", |f| Cell::text(&f.hint)),
    ];

    fn name(&self) -> String {
        self.name.to_string()
    }
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Fail => "fail",
    }
}

/// Runs the command.
///
/// # Errors
/// A check failed: exit code 9.
pub fn run(args: &DoctorArgs, format: Option<Format>, connection: &ConnectionArgs) -> Result {
    let is_root = sys::process::effective_uid() == 0;
    let socket = connection.socket.clone().unwrap_or_else(|| SOCKET_DEFAULT.into());
    let mut findings = machine::look(args, &socket, is_root);
    findings.extend(network::look(args, is_root));
    findings.extend(firewall::look(args, is_root));
    findings.extend(guests::look());
    match format {
        None | Some(Format::Table) => {
            output::write(text(&findings, colours_on(&std::io::stdout())).as_bytes())?
        }
        format => Printer { format, colours: false, now: Timestamp::now() }.list(&findings)?,
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    let (fails, warnings) = (count(Level::Fail), count(Level::Warn));
    if fails > 0 {
        let message = format!("holm cannot work on this machine: {}", counted(fails, "failed check"));
        return Err(Failure::new(model::error::Code::Unsupported, message)
            .hint("each line above with `fail` names the way out"));
    }
    let next = if is_root { "holm serve" } else { "sudo holm serve" };
    match warnings {
        0 => eprintln!("all is well; start it: {next}"),
        _ => eprintln!("holm can run here, with {}; start it: {next}", counted(warnings, "warning")),
    }
    Ok(())
}

/// One line each, and the way out below.
fn text(findings: &[Finding], colours: bool) -> String {
    let width = findings.iter().map(|f| f.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for finding in findings {
        let colour = match finding.level {
            _ if !colours => "",
            Level::Ok => "\x1b[32m",
            Level::Warn => "\x1b[33m",
            Level::Fail => "\x1b[1;31m",
        };
        let plain = if colours { "\x1b[0m" } else { "" };
        out.push_str(&format!(
            "{colour}{:<4}{plain}  {:<width$}  {}\n",
            level_word(finding.level),
            finding.name,
            finding.found
        ));
        for line in finding.hint.lines() {
            out.push_str(&format!("{:6}{:width$}  -> {line}\n", "", ""));
        }
    }
    out
}

/// Full path of a program, looked for where root has its programs too.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/libexec"].map(PathBuf::from);
    std::env::split_paths(&own).chain(more).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// First line that a program prints.
pub fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new(find_program(program)?)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(|line| line.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_with_the_way_out_below() {
        let findings = [
            Finding::ok("kernel", "6.1"),
            Finding::warn("KVM", "there is no /dev/kvm", "modprobe kvm_intel\nor use emulation"),
            Finding::fail("overlay", "missing", "modprobe overlay"),
        ];
        insta::assert_snapshot!(text(&findings, false));
    }

    #[test]
    fn this_machine_is_looked_at_without_a_panic() {
        let args = DoctorArgs {
            state: "/var/lib/holm".into(),
            external: "172.31.240.0/22".parse().unwrap(),
            prefix: "holm".into(),
        };
        let socket = std::path::Path::new("/nonexistent/holm.sock");
        let all = machine::look(&args, socket, false)
            .into_iter()
            .chain(network::look(&args, false))
            .chain(guests::look());
        let all: Vec<Finding> = all.collect();
        assert!(all.len() > 12, "{all:?}");
        assert!(
            all.iter().all(|f| f.level == Level::Ok || !f.hint.is_empty()),
            "a bad finding without a way out: {all:?}"
        );
    }
}
