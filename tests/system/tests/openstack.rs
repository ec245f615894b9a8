//! The OpenStack door, proven by unmodified clients: Tempest and the `openstack` command.
//!
//! Both are installed by `scripts/conformance.d/clients` into an environment of their own, which `scripts/test` does
//! before the tests.

use api::v1::types::{
    flavor::{CreateFlavor, Flavor},
    image::{Image, KernelBootRequest, UpdateImage},
    network::Network,
};
use lab::{Lab, Options};
use model::image::{ImageKind, Visibility};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the doors of these labs listen, on loopback of the lab's machine.
const PLAIN: &str = "127.0.0.1:5001";
const TLS: &str = "https://127.0.0.1:5002";

fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).expect("tests/system is two below the root").to_path_buf()
}

/// The Python of the environment that OpenStack's clients are in.
fn python() -> PathBuf {
    let output = Command::new(repository().join("scripts/conformance.d/clients")).output().expect("clients");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("bin/python")
}

/// A lab with this door, and the rules for logging in that Tempest is told.
fn lab(door: &str) -> Lab {
    let arguments =
        ["--openstack", door, "--login-attempts", "2", "--login-lock", "5", "--unique-passwords", "2"];
    let arguments = arguments.map(str::to_string).to_vec();
    Lab::with(Options { arguments, ..Options::default() })
}

/// Runs a script of `scripts/conformance.d` on the lab's machine as the user admin, and gives what it said.
fn run(lab: &Lab, origin: &str, script: &str, arguments: &[&str]) -> (bool, String) {
    let password = fs::read_to_string(lab.state().join("openstack/admin-password")).expect("password");
    let mut command = Command::new(python());
    command
        .arg(repository().join("scripts/conformance.d").join(script))
        .args(arguments)
        .current_dir(repository())
        .env("HOME", lab.directory())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("OS_AUTH_URL", format!("{origin}/identity/v3"))
        .env("OS_USERNAME", "admin")
        .env("OS_PASSWORD", password.trim())
        .env("OS_PROJECT_NAME", "admin")
        .env("OS_USER_DOMAIN_NAME", "Default")
        .env("OS_PROJECT_DOMAIN_NAME", "Default")
        .env("OS_REGION_NAME", "RegionOne")
        .env("OS_IDENTITY_API_VERSION", "3");
    if origin.starts_with("https") {
        command.env("OS_CACERT", lab.state().join("tls/cert.pem"));
    }
    let output = lab.world.machine.run(move || command.output()).expect("enter").expect(script);
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// Runs a list of the public tests: none fails, none is skipped.
fn pass(lab: &Lab, list: &str, arguments: &[&str]) {
    pass_each(lab, list, 1, arguments);
}

/// Runs every so-manieth test of a list: none fails, none is skipped.
fn pass_each(lab: &Lab, list: &str, step: usize, arguments: &[&str]) {
    let listed = fs::read_to_string(repository().join("tests/conformance").join(list)).expect("list");
    let tests: Vec<&str> = listed.lines().filter(|line| line.starts_with("tempest.")).step_by(step).collect();
    let count = tests.len();
    let path = lab.directory().join("list");
    fs::write(&path, tests.join("\n")).expect("list");
    let path = path.to_string_lossy();
    let work = lab.directory().join("tempest").to_string_lossy().into_owned();
    let arguments = [arguments, &["--work", &work, &path]].concat();
    let (success, text) = run(lab, &format!("http://{PLAIN}"), "tempest.py", &arguments);
    assert!(success && text.contains(&format!("{count} passed, 0 failed, 0 skipped")), "{text}");
}

#[test]
fn tempest_finds_identity_as_it_should_be() {
    let lab = lab(PLAIN);
    pass(&lab, "identity", &["--concurrency", "1"]);
    lab.finish();
}

#[test]
fn tempest_finds_networks_as_they_should_be() {
    let lab = lab(PLAIN);
    let external = lab.project("admin").get::<Network>("external").head.id.to_string();
    pass(&lab, "network", &["--concurrency", "2", "--network", &external]);
    lab.finish();
}

#[test]
fn tempest_finds_images_as_they_should_be() {
    let lab = lab(PLAIN);
    pass(&lab, "image", &["--concurrency", "2"]);
    lab.finish();
}

#[test]
fn tempest_finds_volumes_as_they_should_be_beside_guests() {
    let lab = lab_with_micro();
    pass(&lab, "volume", &strings(&with_guests(&lab)));
    lab.finish();
}

/// A third of what there is of servers, always the same; `make conformance` runs all.
#[test]
fn tempest_finds_guests_as_they_should_be() {
    let lab = lab_with_micro();
    pass_each(&lab, "compute", 3, &strings(&with_guests(&lab)));
    lab.finish();
}

fn strings(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// What Tempest is told of guests: the micro guest is there for everyone, twice, and has two small flavors.
fn with_guests(lab: &Lab) -> Vec<String> {
    let admin = lab.project("admin");
    add_micro(lab, "micro-alt");
    for image in ["micro-kernel", "micro-initrd", "micro", "micro-alt"] {
        let change = UpdateImage { visibility: Some(Visibility::Public), ..UpdateImage::default() };
        admin.update::<Image>(image, &change);
    }
    let image = |name: &str| admin.get::<Image>(name).head.id.to_string();
    let flavor = |name: &str, memory_mib, disk_gib| {
        let request = CreateFlavor {
            name: name.into(),
            vcpus: Some(1),
            memory_mib: Some(memory_mib),
            disk_gib: Some(disk_gib),
            ..CreateFlavor::default()
        };
        admin.create::<Flavor>(&request).head.id.to_string()
    };
    [
        ("--image", image("micro")),
        ("--image-alt", image("micro-alt")),
        ("--flavor", flavor("t1.micro", 128, 1)),
        ("--flavor-alt", flavor("t1.small", 192, 2)),
        ("--network", admin.get::<Network>("external").head.id.to_string()),
    ]
    .into_iter()
    .flat_map(|(option, value)| [option.to_string(), value])
    .chain(["--validate".to_string(), "--concurrency".to_string(), "2".to_string()])
    .collect()
}

/// Everyday commands, by TLS with the certificate that holm made.
#[test]
fn openstack_client_manages_identities() {
    let lab = lab(TLS);
    let (success, text) = run(&lab, TLS, "commands.py", &["identity"]);
    assert!(success, "{text}");
    lab.finish();
}

/// Everyday commands around images, disks and quotas: what holm does without a guest.
#[test]
fn openstack_client_manages_a_cloud() {
    let lab = lab(PLAIN);
    let (success, text) = run(&lab, &format!("http://{PLAIN}"), "commands.py", &["cloud"]);
    assert!(success, "{text}");
    lab.finish();
}

/// A lab with the micro guest as an image of the project `admin`.
fn lab_with_micro() -> Lab {
    let lab = lab(PLAIN);
    let admin = lab.project("admin");
    admin.upload("micro-kernel", ImageKind::Kernel, None, &lab.images.micro("kernel"));
    admin.upload("micro-initrd", ImageKind::Initrd, None, &lab.images.micro("initrd"));
    add_micro(&lab, "micro");
    lab
}

/// Makes an image of the micro guest's disk.
fn add_micro(lab: &Lab, name: &str) {
    let cmdline = fs::read_to_string(lab.images.micro("cmdline")).expect("cmdline").trim().to_string();
    let boot = KernelBootRequest {
        kernel: Some("micro-kernel".into()),
        initrd: Some("micro-initrd".into()),
        cmdline,
    };
    lab.project("admin").upload(name, ImageKind::Disk, Some(boot), &lab.images.micro("disk.qcow2"));
}

/// Everyday commands around a real guest: it is made, gets volumes, becomes an image, and boots from a volume.
#[test]
fn openstack_client_runs_a_guest() {
    let lab = lab_with_micro();
    let (success, text) = run(&lab, &format!("http://{PLAIN}"), "commands.py", &["compute"]);
    assert!(success, "{text}");
    lab.finish();
}

/// A guest's screen and serial line by websockets, its rescue from another disk, and a new beginning on its volume; and
/// a small project by openstacksdk.
#[test]
fn openstack_client_rescues_a_guest() {
    let lab = lab_with_micro();
    let (success, text) = run(&lab, &format!("http://{PLAIN}"), "commands.py", &["rescue", "sdk"]);
    assert!(success, "{text}");
    lab.finish();
}

/// A system container of a root file system that Glance was given.
#[test]
fn openstack_client_boots_a_system_container() {
    let lab = lab(PLAIN);
    let root = lab.images.file("busybox-system", "rootfs.tar.xz");
    fs::copy(root, lab.directory().join("root.tar.xz")).expect("the archive");
    let (success, text) = run(&lab, &format!("http://{PLAIN}"), "commands.py", &["system"]);
    assert!(success, "{text}");
    lab.finish();
}
