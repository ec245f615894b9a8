//! What virtual machines need: QEMU, its tools, and KVM at the speed of the processor.

use super::{Finding, find_program, first_line};
use node::vm::accel::{Verdict, judge};
use std::path::Path;

/// A path below a file: what would be kept there is not kept, so that looking changes nothing.
const NO_CACHE: &str = "/dev/null/kvm";
/// Oldest QEMU whose machine types and monitor holm knows.
const QEMU_MIN: (u32, u32) = (6, 2);

/// All checks of this file.
pub fn look() -> Vec<Finding> {
    vec![qemu(), qemu_img(), kvm(), ssh()]
}

fn qemu() -> Finding {
    let install =
        "for virtual machines: apt install qemu-system-x86, or dnf install qemu-kvm; containers work without";
    let names = ["qemu-system-x86_64", "qemu-kvm"];
    let Some(line) = names.iter().find_map(|name| first_line(name, &["--version"])) else {
        return Finding::warn("QEMU", "not installed", install);
    };
    let version =
        line.split_whitespace().skip_while(|word| *word != "version").nth(1).unwrap_or_default().to_string();
    let mut numbers = version.split('.').map(|n| n.parse().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < QEMU_MIN {
        return Finding::warn(
            "QEMU",
            format!("version {version}"),
            "holm needs version 6.2 or later for virtual machines",
        );
    }
    Finding::ok("QEMU", format!("version {version}"))
}

fn qemu_img() -> Finding {
    match find_program("qemu-img") {
        Some(path) => Finding::ok("qemu-img", path.display().to_string()),
        None => Finding::warn(
            "qemu-img",
            "not installed",
            "for disks of virtual machines: apt install qemu-utils, or dnf install qemu-img",
        ),
    }
}

fn kvm() -> Finding {
    let found = judge(Path::new("/dev/kvm"), Path::new(NO_CACHE));
    let rate = found
        .iterations_per_second
        .map_or(String::new(), |rate| format!(" ({:.0} million loops a second)", rate / 1e6));
    if found.verdict == Verdict::Works {
        return Finding::ok("KVM", format!("{}{rate}", found.reason));
    }
    Finding::warn(
        "KVM",
        format!("{}; virtual machines are emulated, 10 to 50 times slower", found.reason),
        found.hint,
    )
}

fn ssh() -> Finding {
    match find_program("ssh") {
        Some(path) => Finding::ok("ssh", path.display().to_string()),
        None => Finding::warn("ssh", "not installed", "for `holm ssh`: apt install openssh-client"),
    }
}
