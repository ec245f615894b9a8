//! Which kernel is taken, and what its first file system is made of.

use super::*;
use std::process::{Command, Stdio};

/// An image with a version at a place far behind its head.
fn image_of(version: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x1000];
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x20e..0x210].copy_from_slice(&0x800_u16.to_le_bytes());
    let text = format!("{version} (who@where) #1 SMP\0");
    bytes[0xa00..0xa00 + text.len()].copy_from_slice(text.as_bytes());
    bytes
}

/// A host with these kernels, the second of each pair with all that guests need.
fn host(kernels: &[(&str, bool)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("boot")).expect("made");
    for (version, whole) in kernels {
        fs::write(directory.path().join("boot").join(format!("vmlinuz-{version}")), image_of(version))
            .expect("written");
        let modules = directory.path().join("modules").join(version);
        fs::create_dir_all(&modules).expect("made");
        fs::write(modules.join("modules.order"), "").expect("written");
        let names = modules::NEEDED.into_iter().filter(|name| *whole || *name != "ext4");
        let lines: Vec<String> = names.map(|name| format!("kernel/x/{name}.ko")).collect();
        fs::write(modules.join("modules.builtin"), lines.join("\n")).expect("written");
    }
    directory
}

fn newest(host: &tempfile::TempDir) -> Result<Kernel, DriverError> {
    Kernel::newest(&host.path().join("boot"), &host.path().join("modules"))
}

#[test]
fn the_newest_kernel_with_all_that_guests_need_is_taken() {
    let kernels = [("6.1.0-9-cloud-amd64", true), ("6.1.0-37-cloud-amd64", true), ("6.12.1-amd64", false)];
    let found = newest(&host(&kernels)).expect("a kernel");
    assert_eq!(found.version, "6.1.0-37-cloud-amd64");
    assert!(found.image.ends_with("boot/vmlinuz-6.1.0-37-cloud-amd64"));
    let error = newest(&host(&kernels[2..])).expect_err("none");
    let DriverError::Missing { hint, .. } = &error else { panic!("{error:?}") };
    assert!(hint.contains("linux-image-cloud-amd64") && hint.contains("--guest-kernel"), "{hint}");
    assert!(newest(&tempfile::tempdir().expect("an empty host")).is_err());
}

#[test]
fn a_kernel_that_was_asked_for_is_taken_or_it_is_told_why_not() {
    let host = host(&[("6.1.0-37-cloud-amd64", true), ("6.12.1-amd64", false)]);
    let whole = host.path().join("boot/vmlinuz-6.1.0-37-cloud-amd64");
    let error = Kernel::find(Some(&whole)).expect_err("no modules beside it").to_string();
    assert!(error.contains("the directory of modules"), "{error}");
    let beside = host.path().join("boot/modules");
    fs::rename(host.path().join("modules/6.1.0-37-cloud-amd64"), &beside).expect("renamed");
    assert_eq!(Kernel::find(Some(&whole)).expect("a kernel").modules, beside);

    fs::remove_dir_all(&beside).expect("removed");
    fs::rename(host.path().join("modules/6.12.1-amd64"), &beside).expect("renamed");
    let part = host.path().join("boot/vmlinuz-6.12.1-amd64");
    let error = Kernel::find(Some(&part)).expect_err("without ext4").to_string();
    assert!(error.contains("(ext4)"), "{error}");
}

#[test]
fn a_version_is_read_from_the_image_and_nothing_else_is_taken_for_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("image");
    let check = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        version_of(&path).map_err(|error| error.kind())
    };
    assert_eq!(check(&image_of("6.1.0-37-cloud-amd64")).as_deref(), Ok("6.1.0-37-cloud-amd64"));
    for bad in [&b""[..], &[0; 0x1000], &image_of("../../etc"), &image_of("")] {
        assert_eq!(check(bad), Err(io::ErrorKind::InvalidData));
    }
}

#[test]
fn versions_are_compared_by_their_numbers() {
    let ordered = ["5.10.0", "6.1.0-9-cloud-amd64", "6.1.0-37-amd64", "6.1.0-37-cloud-amd64", "6.12"];
    for (at, one) in ordered.iter().enumerate() {
        for (behind, other) in ordered.iter().enumerate() {
            assert_eq!(compare_versions(one, other), at.cmp(&behind), "{one} {other}");
        }
    }
}

fn kernel(host: &tempfile::TempDir) -> Kernel {
    newest(host).expect("a kernel")
}

#[test]
fn the_first_file_system_has_the_program_and_its_libraries_and_is_made_once() {
    let host = host(&[("6.1.0-37-cloud-amd64", true)]);
    let program = std::env::current_exe().expect("a program");
    let directory = host.path().join("cache");
    let foretold = initramfs_bytes(&kernel(&host), &program, &directory).expect("known before it is made");
    let path = initramfs(&kernel(&host), &program, &directory).expect("made");
    let bytes = fs::metadata(&path).expect("there").len();
    // But for the names and heads of its files.
    assert!(foretold <= bytes && bytes - foretold < 64 << 10, "{foretold} were foretold of {bytes}");
    assert_eq!(initramfs_bytes(&kernel(&host), &program, &directory).expect("known"), bytes);
    assert_eq!(overhead_mib(bytes), GUEST_OVERHEAD_MIB + 2 * bytes.div_ceil(1 << 20));
    let list = Command::new("cpio")
        .args(["--quiet", "-t"])
        .stdin(Stdio::from(File::open(&path).expect("open")))
        .output()
        .expect("cpio is installed");
    let list = String::from_utf8(list.stdout).expect("text");
    let names: Vec<&str> = list.lines().collect();
    for name in ["holm", "dev/console", "proc", "newroot"] {
        assert!(names.contains(&name), "{name} in {list}");
    }
    assert!(names.iter().any(|name| name.ends_with("/libc.so.6")), "{list}");

    // QEMU opens it as a user of its own.
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o644);
    let made = fs::metadata(&path).expect("there").ino();
    assert_eq!(initramfs(&kernel(&host), &program, &directory).expect("found"), path);
    assert_eq!(fs::metadata(&path).expect("there").ino(), made);
}

#[test]
fn a_new_kernel_gets_a_new_one_and_the_oldest_go() {
    let host = host(&[("6.1.0-37-cloud-amd64", true)]);
    let program = Path::new("/bin/true");
    let directory = host.path().join("cache");
    let mut made = Vec::new();
    for round in 0..=KEPT_MAX as u64 {
        let changed = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 + round);
        File::open(host.path().join("boot/vmlinuz-6.1.0-37-cloud-amd64"))
            .and_then(|file| file.set_modified(changed))
            .expect("changed");
        let path = initramfs(&kernel(&host), program, &directory).expect("made");
        File::open(&path).and_then(|file| file.set_modified(changed)).expect("aged");
        made.push(path);
    }
    assert!(!made[0].exists());
    assert!(made[1..].iter().all(|path| path.exists()));
    assert_eq!(fs::read_dir(&directory).expect("listed").count(), KEPT_MAX);
}

#[test]
fn a_kernel_that_no_monitor_can_start_boots_by_its_image() {
    let host = host(&[("6.1.0-37-cloud-amd64", true)]);
    let directory = host.path().join("cache");
    let kernel = kernel(&host);
    for _ in 0..2 {
        assert_eq!(image(&kernel, &directory).expect("an image"), kernel.image);
    }
    assert_eq!(fs::read_dir(&directory).expect("listed").count(), 1);
}
