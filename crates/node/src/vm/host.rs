//! What this host offers to VMs: which QEMU, which machine types, which firmware.
//!
//! Asked of the installed program when a VM is started, so that an upgraded QEMU needs no restart of the daemon; the
//! answer is kept for as long as the program is the same file.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{process::Command, time::timeout};

use super::machine::{HostFacts, UefiFirmware};
use crate::driver::DriverError;

/// QEMU answers its own questions within this time, or is taken for broken.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Names under which distributions install QEMU.
const PROGRAMS: [&str; 3] =
    ["/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"];
/// Where distributions keep UEFI firmware: code and template of the variables.
const FIRMWARE: [(&str, &str); 5] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
];

/// Names a file as long as it is unchanged: device, inode, size and time of the last change.
type FileMark = (u64, u64, u64, i64);

/// The host as it was last asked.
#[derive(Debug, Default)]
pub struct Host {
    program: Option<PathBuf>,
    known: tokio::sync::Mutex<Option<(FileMark, HostFacts)>>,
}

impl Host {
    /// A host with its QEMU at `program`, or where distributions put it.
    pub fn new(program: Option<PathBuf>) -> Host {
        Host { program, known: Default::default() }
    }

    /// What the host offers; asks QEMU if it is not the file that was asked before.
    pub async fn facts(&self) -> Result<HostFacts, DriverError> {
        let program = self.find()?;
        let mark = mark(&program).map_err(|source| failed(&program, source))?;
        let mut known = self.known.lock().await;
        if let Some((asked, facts)) = &*known
            && *asked == mark
        {
            return Ok(facts.clone());
        }
        let facts = ask(&program).await?;
        *known = Some((mark, facts.clone()));
        Ok(facts)
    }

    fn find(&self) -> Result<PathBuf, DriverError> {
        let candidates = self.program.iter().cloned().chain(PROGRAMS.iter().map(PathBuf::from));
        let limit = if self.program.is_some() { 1 } else { PROGRAMS.len() };
        candidates.take(limit).find(|path| path.is_file()).ok_or_else(|| DriverError::Missing {
            what: "QEMU (qemu-system-x86_64)".to_owned(),
            hint: "Install it: `apt install qemu-system-x86`, `dnf install qemu-kvm`.".to_owned(),
        })
    }
}

fn mark(path: &Path) -> io::Result<FileMark> {
    let data = fs::metadata(path)?;
    Ok((data.dev(), data.ino(), data.size(), data.mtime()))
}

fn failed(program: &Path, source: io::Error) -> DriverError {
    DriverError::Io { operation: format!("asking {} what it can do", program.display()), source }
}

async fn ask(program: &Path) -> Result<HostFacts, DriverError> {
    let (version, machines) =
        tokio::try_join!(run(program, &["--version"]), run(program, &["-machine", "help"]))?;
    let q35 = q35_alias(&machines).ok_or_else(|| DriverError::Unsupported {
        what: format!("{} has no machine type q35", program.display()),
        hint: "Install a QEMU for x86_64 of version 6.2 or later.".to_owned(),
    })?;
    let uefi =
        FIRMWARE.iter().find(|(code, variables)| Path::new(code).is_file() && Path::new(variables).is_file());
    Ok(HostFacts {
        program: program.to_owned(),
        qemu_version: version_number(&version).to_owned(),
        q35,
        machine_types: machines
            .lines()
            .skip(1)
            .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
            .collect(),
        vhost_net: fs::OpenOptions::new().read(true).write(true).open("/dev/vhost-net").is_ok(),
        uefi: uefi.map(|(code, variables)| UefiFirmware { code: code.into(), variables: variables.into() }),
    })
}

async fn run(program: &Path, arguments: &[&str]) -> Result<String, DriverError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let late = |_| DriverError::Timeout {
        what: format!("{} {}", program.display(), arguments.join(" ")),
        after_ms: ANSWER_DEADLINE.as_millis() as u64,
    };
    let output = timeout(ANSWER_DEADLINE, command.output()).await.map_err(late)?;
    let output = output.map_err(|source| failed(program, source))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `q35   Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)`.
fn q35_alias(machines: &str) -> Option<String> {
    let line = machines.lines().find(|line| line.split_whitespace().next() == Some("q35"))?;
    let (_, rest) = line.split_once("(alias of ")?;
    Some(rest.split(')').next()?.to_owned())
}

/// `QEMU emulator version 7.2.22 (Debian …)`.
fn version_number(text: &str) -> &str {
    let rest = text.split_once("version ").map_or("", |(_, rest)| rest);
    rest.split_whitespace().next().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_machine_types_are_read() {
        assert_eq!(version_number("QEMU emulator version 7.2.22 (Debian 1:7.2)\n"), "7.2.22");
        assert_eq!(version_number("QEMU emulator version 10.0.2\nCopyright"), "10.0.2");
        let machines = "Supported machines are:\npc  PC (alias of pc-i440fx-7.2)\nq35   Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)\n";
        assert_eq!(q35_alias(machines).as_deref(), Some("pc-q35-7.2"));
        assert_eq!(q35_alias("none"), None);
    }

    #[tokio::test]
    async fn the_installed_qemu_is_asked_and_a_missing_one_is_told_with_the_fix() {
        let facts = Host::new(None).facts().await.unwrap();
        assert!(facts.machine_types.contains(&facts.q35), "{facts:?}");
        let error = Host::new(Some("/nonexistent/qemu".into())).facts().await.unwrap_err();
        assert!(matches!(error, DriverError::Missing { .. }), "{error}");
    }
}
