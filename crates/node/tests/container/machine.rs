//! A pod's machine from its kernel to its end: what it boots, and that nothing keeps it running.

use node::container::machine::boot::{self, Kernel};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The kernel that `scripts/images/kernel` unpacks.
fn kernel() -> Kernel {
    let cache = std::env::var_os("HOLM_IMAGE_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var_os("HOME").expect("HOME is set");
        Path::new(&home).join(".cache/holm/images")
    });
    let image = cache.join("kernel/current/vmlinuz");
    assert!(image.exists(), "{} is missing: run scripts/images/build kernel", image.display());
    Kernel::find(Some(&image)).expect("a kernel for guests")
}

/// Boots the guest's role with these devices and gives what it told its console, when it has taken its power away.
fn boot(memory_mib: u32, devices: &[&str]) -> String {
    let kernel = kernel();
    let directory = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_holm-shim-test"));
    let initramfs = boot::initramfs(&kernel, program, directory.path()).expect("a first file system");
    let image = boot::image(&kernel, directory.path()).expect("an image");
    // Debian's kernels can be started by a monitor.
    assert_ne!(image, kernel.image);
    let arguments =
        format!("console=ttyS0 quiet no_timer_check mitigations=off panic=-1 {}", boot::ARGUMENTS);
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-machine",
        "q35",
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
    ])
    .args(["-m", &memory_mib.to_string(), "-serial", "stdio", "-append", &arguments])
    .args([Path::new("-kernel"), &kernel.image, Path::new("-initrd"), &initramfs])
    .args(devices);
    let output = qemu.stdin(Stdio::null()).output().expect("QEMU is installed");
    let console = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{console}\n{}", String::from_utf8_lossy(&output.stderr));
    console
}

#[test]
fn a_guest_that_cannot_go_on_tells_why_and_takes_its_power_away() {
    let console = boot(256, &["-device", "virtio-serial-pci"]);
    assert!(console.contains("holm: the machine has no port named \"holm\""), "{console}");
    assert!(!console.contains("Kernel panic"), "{console}");
}
