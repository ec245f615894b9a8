//! Root file systems, really mounted: owners as seen through the mount, many layers, restarts, copies.

use super::fixture::{Tar, digest, open_file};
use crate::image::{
    layer_tree::LayerLimits,
    layers::LayerStore,
    rootfs::{Rootfs, RootfsError, Shift, usage},
};
use model::plan::IdRange;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};

const BASE: u32 = 1_200_000;

/// A store, and a root file system that is unmounted with this value.
struct Ground {
    dir: tempfile::TempDir,
    rootfs: Rootfs,
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = self.rootfs.unmount();
    }
}

async fn ground(tars: &[Vec<u8>]) -> Ground {
    let dir = tempfile::tempdir_in("/var/tmp").expect("temp dir");
    let store = LayerStore::open(dir.path(), LayerLimits::default()).expect("opens");
    let mut layers = Vec::new();
    for tar in tars {
        store.unpack(open_file(tar), digest(tar), digest(tar)).await.expect("unpacks");
        layers.push(store.path(&digest(tar)));
    }
    let place = dir.path().join("instances/one");
    let ids = IdRange { base: BASE, count: 65536 };
    let rootfs = Rootfs { layers, upper: place.join("upper"), ids, target: place.join("rootfs") };
    Ground { dir, rootfs }
}

fn capability() -> [u8; 20] {
    let mut value = [0u8; 20];
    value[..4].copy_from_slice(&0x0200_0001u32.to_le_bytes());
    value[4..8].copy_from_slice(&(1u32 << 10).to_le_bytes());
    value
}

fn layers() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .dir("etc", 0o755)
            .file("etc/passwd", 0o644, b"root")
            .file("etc/shadow", 0o600, b"secret")
            .dir("opaque", 0o755)
            .file("opaque/below", 0o644, b"below")
            .owned("home", 0o4750, 1000, 1001, b"mine")
            .hard_link("home2", "home")
            .pax(&[("SCHILY.xattr.security.capability", &capability())])
            .file("web", 0o755, b"web")
            .bytes(),
        Tar::new()
            .dir("./", 0o750)
            .file("etc/.wh.shadow", 0o644, b"")
            .dir("opaque", 0o755)
            .file("opaque/.wh..wh..opq", 0o644, b"")
            .file("opaque/above", 0o644, b"above")
            .file("etc/passwd", 0o644, b"changed")
            .symlink("link", "/etc/passwd")
            .bytes(),
    ]
}

fn check_view(ground: &Ground) {
    let at = |name: &str| ground.rootfs.target.join(name);
    let meta = |name: &str| fs::symlink_metadata(at(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(fs::read(at("etc/passwd")).expect("reads"), b"changed");
    assert!(!at("etc/shadow").exists(), "whited out");
    assert!(at("opaque/above").exists() && !at("opaque/below").exists());
    for (name, uid, gid) in
        [("", 0, 0), ("etc", 0, 0), ("etc/passwd", 0, 0), ("home", 1000, 1001), ("link", 0, 0), ("web", 0, 0)]
    {
        let meta = meta(name);
        assert_eq!((meta.uid(), meta.gid()), (BASE + uid, BASE + gid), "{name}");
    }
    assert_eq!(meta("").mode() & 0o7777, 0o750, "the top layer's root");
    assert_eq!(meta("home").mode() & 0o7777, 0o4750);
    assert_eq!(meta("home").ino(), meta("home2").ino());
    // Version 3 with the container's root: the program keeps its capability in the container's user namespace only.
    let mut value = [0u8; 64];
    let count = rustix::fs::lgetxattr(at("web"), "security.capability", &mut value).expect("has it");
    assert_eq!(count, 24);
    assert_eq!(value[20..24], BASE.to_le_bytes());
}

#[tokio::test]
async fn owners_are_shifted_whiteouts_hide_and_the_layers_stay() {
    for shift in [Shift::Probe, Shift::Copy] {
        let ground = ground(&layers()).await;
        ground.rootfs.mount(shift).expect("mounts");
        check_view(&ground);
        let mounted_at: Vec<PathBuf> = sys::mount::below(ground.dir.path())
            .expect("lists")
            .into_iter()
            .map(|entry| entry.target)
            .collect();
        assert_eq!(mounted_at, std::slice::from_ref(&ground.rootfs.target), "nothing else stays mounted");
        assert_eq!(ground.rootfs.upper.join("shifted").exists(), shift == Shift::Copy);
        // A write goes to the container's own directory, with host ids of its range; the layer stays as it was.
        fs::write(ground.rootfs.target.join("etc/passwd"), "written").expect("writes");
        let own = ground.rootfs.upper.join("fs/etc/passwd");
        assert_eq!(fs::read(&own).expect("reads"), b"written");
        assert_eq!(fs::metadata(&own).expect("looks").uid(), BASE);
        assert_eq!(fs::read(ground.rootfs.layers[1].join("etc/passwd")).expect("reads"), b"changed");
        assert_eq!(fs::metadata(ground.rootfs.layers[1].join("etc/passwd")).expect("looks").uid(), 0);
    }
}

#[tokio::test]
async fn the_container_s_root_writes_what_it_owns_and_nothing_else() {
    let ground = ground(&layers()).await;
    ground.rootfs.mount(Shift::Probe).expect("mounts");
    // The way to the mount, and its root, must be open for the test's unprivileged processes.
    let ways =
        [ground.dir.path().to_path_buf(), ground.dir.path().join("instances"), ground.rootfs.target.clone()];
    for dir in ways {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("opens up");
    }
    let run = |uid: u32, script: &str| {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).current_dir(&ground.rootfs.target).uid(uid).gid(uid);
        command.output().expect("runs").status.success()
    };
    assert!(run(BASE, "echo x > etc/new && echo y >> etc/passwd && chmod 600 etc/passwd"));
    assert!(!run(BASE + 5, "echo x > etc/other"));
    assert!(run(BASE + 1000, "cat home > /dev/null"));
    assert_eq!(fs::metadata(ground.rootfs.target.join("etc/passwd")).expect("looks").uid(), BASE);
}

#[tokio::test]
async fn a_new_daemon_finds_the_mount_and_a_reboot_keeps_the_files() {
    let ground = ground(&layers()).await;
    ground.rootfs.mount(Shift::Probe).expect("mounts");
    fs::write(ground.rootfs.target.join("kept"), "kept").expect("writes");
    let again = ground.rootfs.clone();
    assert!(again.is_mounted().expect("looks"));
    again.mount(Shift::Probe).expect("is fine");
    assert_eq!(sys::mount::below(&again.target).expect("lists").len(), 1, "not mounted twice");
    again.unmount().expect("unmounts");
    again.unmount().expect("again is fine");
    assert!(!again.is_mounted().expect("looks"));
    again.mount(Shift::Probe).expect("mounts");
    assert_eq!(fs::read(again.target.join("kept")).expect("reads"), b"kept");
    again.remove().expect("removes");
    again.remove().expect("again is fine");
    assert!(!again.upper.exists() && !again.target.exists());
    assert!(again.layers[0].exists());
}

#[tokio::test]
async fn more_than_a_hundred_layers_are_stacked() {
    let tars: Vec<Vec<u8>> = (0..130)
        .map(|n| {
            Tar::new()
                .file(&format!("f{n}"), 0o644, b"x")
                .file("last", 0o644, n.to_string().as_bytes())
                .bytes()
        })
        .collect();
    let ground = ground(&tars).await;
    ground.rootfs.mount(Shift::Probe).expect("mounts");
    assert_eq!(fs::read(ground.rootfs.target.join("last")).expect("reads"), b"129");
    assert_eq!(fs::read_dir(&ground.rootfs.target).expect("lists").count(), 131);
}

#[tokio::test]
async fn usage_counts_the_container_s_own_files_once() {
    let ground = ground(&layers()).await;
    assert_eq!(usage(ground.rootfs.upper.clone()).await.expect("counts").entries, 0, "nothing is there yet");
    ground.rootfs.mount(Shift::Probe).expect("mounts");
    let before = usage(ground.rootfs.upper.clone()).await.expect("counts");
    assert_eq!(before.entries, 0);
    fs::create_dir(ground.rootfs.target.join("d")).expect("creates");
    fs::write(ground.rootfs.target.join("d/big"), vec![1; 1 << 20]).expect("writes");
    fs::hard_link(ground.rootfs.target.join("d/big"), ground.rootfs.target.join("d/same")).expect("links");
    std::os::unix::fs::symlink("/", ground.rootfs.target.join("d/root")).expect("links");
    let after = usage(ground.rootfs.upper.clone()).await.expect("counts");
    assert_eq!(after.entries, 3);
    assert!((1 << 20..2 << 20).contains(&after.allocated_bytes), "{after:?}");
}

#[tokio::test]
async fn an_image_without_layers_and_a_missing_layer() {
    let ground = ground(&[]).await;
    ground.rootfs.mount(Shift::Probe).expect("mounts");
    assert_eq!(fs::read_dir(&ground.rootfs.target).expect("lists").count(), 0);
    let missing = Rootfs {
        layers: vec![ground.dir.path().join("none")],
        target: ground.dir.path().join("other"),
        ..ground.rootfs.clone()
    };
    assert!(matches!(missing.mount(Shift::Probe), Err(RootfsError::LayerMissing(_))));
}
