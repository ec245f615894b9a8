//! Layers that become disks, by the real mke2fs, read back by debugfs and e2fsck.

use super::*;
use rustix::fs::{self as rfs, CWD, Mode};
use std::{
    collections::{BTreeMap, HashSet},
    os::unix::fs::{PermissionsExt, chown},
    process::Command,
};

/// A file's kind and mode, owner, and content or target.
#[derive(PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    content: Vec<u8>,
}

struct Lab {
    _scratch: tempfile::TempDir,
    state: PathBuf,
    bases: Bases,
}

impl Lab {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let state = scratch.path().join("state");
        fs::create_dir(&state).unwrap();
        Self { bases: Bases::new(&state), state, _scratch: scratch }
    }

    /// A layer, open to all as layers are.
    fn layer(&self, name: &str) -> PathBuf {
        let layer = self.state.join("layers").join(name);
        fs::create_dir_all(&layer).unwrap();
        fs::set_permissions(&layer, fs::Permissions::from_mode(0o755)).unwrap();
        layer
    }

    fn bases(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.state.join("bases"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "merge")
            .collect();
        names.sort();
        names
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn debugfs(disk: &Path, request: &str) -> String {
    run("/usr/sbin/debugfs", &["-R", request, disk.to_str().unwrap()])
}

fn read_tree(top: &Path, at: &Path, found: &mut BTreeMap<PathBuf, Entry>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let seen = fs::symlink_metadata(&path).unwrap();
        let content = match seen.file_type() {
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            kind if kind.is_file() => fs::read(&path).unwrap(),
            _ => vec![],
        };
        let (mode, owner) = (seen.mode(), (seen.uid(), seen.gid()));
        found.insert(path.strip_prefix(top).unwrap().into(), Entry { mode, owner, content });
        if seen.is_dir() {
            read_tree(top, &path, found);
        }
    }
}

fn write(path: &Path, content: &[u8], mode: u32, owner: u32) {
    fs::write(path, content).unwrap();
    chown(path, Some(owner), Some(owner + 1)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn whiteout(path: &Path) {
    rfs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

/// Two layers with all that layers have; the upper one has one file anew, one gone, one directory emptied and a sticky one.
fn fill(low: &Path, high: &Path, large: &[u8]) {
    fs::create_dir_all(low.join("usr/bin")).unwrap();
    write(&low.join("usr/bin/su"), b"set-id", 0o4755, 0);
    write(&low.join("usr/bin/gone"), b"hidden above", 0o755, 0);
    write(&low.join("old"), b"of the lower layer", 0o644, 7);
    fs::create_dir(low.join("emptied")).unwrap();
    write(&low.join("emptied/before"), b"x", 0o644, 0);
    write(&low.join("large"), large, 0o600, 65_000);
    symlink("usr/bin/su", low.join("short")).unwrap();
    symlink("a/".repeat(100), low.join("long")).unwrap();
    fs::hard_link(low.join("large"), low.join("again")).unwrap();
    run("/usr/sbin/setcap", &["cap_net_raw=ep", low.join("usr/bin/su").to_str().unwrap()]);
    rfs::mknodat(CWD, low.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    write(&high.join("old"), b"of the upper", 0o640, 8);
    fs::create_dir_all(high.join("usr/bin")).unwrap();
    whiteout(&high.join("usr/bin/gone"));
    fs::create_dir(high.join("emptied")).unwrap();
    rfs::setxattr(high.join("emptied"), "trusted.overlay.opaque", b"y", rfs::XattrFlags::empty()).unwrap();
    write(&high.join("emptied/after"), b"y", 0o644, 0);
    fs::create_dir(high.join("tmp")).unwrap();
    fs::set_permissions(high.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(high, fs::Permissions::from_mode(0o711)).unwrap();
    chown(high, Some(5), Some(6)).unwrap();
}

#[test]
fn a_disk_has_the_files_of_all_layers() {
    let lab = Lab::new();
    let (low, high) = (lab.layer("low"), lab.layer("high"));
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    fill(&low, &high, &large);

    let disk = lab.state.join("base-0.ext4");
    lab.bases.provide(&[low, high], &disk).unwrap();

    run("/usr/sbin/e2fsck", &["-f", "-n", disk.to_str().unwrap()]);
    let out = lab.state.join("out");
    fs::create_dir(&out).unwrap();
    debugfs(&disk, &format!("rdump / {}", out.display()));
    let mut found = BTreeMap::new();
    read_tree(&out, &out, &mut found);
    let file = |mode: u32, owner: (u32, u32), content: &[u8]| Entry { mode, owner, content: content.into() };
    let (of_file, of_directory) = (0o100_000, 0o040_000);
    let wanted: BTreeMap<PathBuf, Entry> = BTreeMap::from([
        ("again".into(), file(of_file | 0o600, (65_000, 65_001), &large)),
        ("emptied".into(), file(of_directory | 0o755, (0, 0), b"")),
        ("emptied/after".into(), file(of_file | 0o644, (0, 1), b"y")),
        ("large".into(), file(of_file | 0o600, (65_000, 65_001), &large)),
        ("long".into(), file(0o120_777, (0, 0), "a/".repeat(100).as_bytes())),
        ("old".into(), file(of_file | 0o640, (8, 9), b"of the upper")),
        ("short".into(), file(0o120_777, (0, 0), b"usr/bin/su")),
        ("tmp".into(), file(of_directory | 0o777, (0, 0), b"")),
        ("usr".into(), file(of_directory | 0o755, (0, 0), b"")),
        ("usr/bin".into(), file(of_directory | 0o755, (0, 0), b"")),
        // What debugfs writes out loses its sticky and set-id bits.
        ("usr/bin/su".into(), file(of_file | 0o755, (0, 1), b"set-id")),
    ]);
    // debugfs writes no pipes out.
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (path, entry) in &found {
        // A large content is told by nobody.
        assert!(entry == &wanted[path], "{}: {:o} {:?}", path.display(), entry.mode, entry.owner);
    }
    for (path, mode) in [("/usr/bin/su", "Mode:  04755"), ("/tmp", "Mode:  01777")] {
        assert!(debugfs(&disk, &format!("stat {path}")).contains(mode), "{path}");
    }
    let inode = |path: &str| {
        let told = debugfs(&disk, &format!("stat {path}"));
        told.split_whitespace().nth(1).unwrap().to_string()
    };
    assert_eq!(inode("/large"), inode("/again"), "one file by two names");
    assert!(debugfs(&disk, "stat /pipe").contains("Type: FIFO"));
    assert!(debugfs(&disk, "ea_list /usr/bin/su").contains("security.capability"));
    assert!(!debugfs(&disk, "ea_list /emptied").contains("overlay"));
    let top = debugfs(&disk, "stat /");
    assert!(top.contains("Mode:  0711") && top.contains("User:     5   Group:     6"), "{top}");
    assert!(!debugfs(&disk, "ls -p /").contains("lost+found"));
}

#[test]
fn one_layer_and_none_are_disks_too() {
    let lab = Lab::new();
    let one = lab.layer("one");
    write(&one.join("file"), b"content", 0o644, 0);
    // What it says of layers that are not below it is nothing that the disk shows.
    whiteout(&one.join("hidden"));
    fs::create_dir(one.join("lost+found")).unwrap();
    let disk = lab.state.join("disk.ext4");
    lab.bases.provide(&[one], &disk).unwrap();
    run("/usr/sbin/e2fsck", &["-f", "-n", disk.to_str().unwrap()]);
    assert_eq!(debugfs(&disk, "cat /file"), "content");
    let listed = debugfs(&disk, "ls -p /");
    assert!(!listed.contains("hidden") && listed.contains("lost+found"), "{listed}");
    lab.bases.provide(&[], &disk).unwrap();
    assert!(!debugfs(&disk, "ls -p /").contains("file"));
}

#[test]
fn many_layers_are_merged() {
    let lab = Lab::new();
    let layers: Vec<PathBuf> = (0..LAYERS_MAX - 1).map(|n| lab.layer(&n.to_string())).collect();
    for (number, layer) in layers.iter().enumerate() {
        write(&layer.join("top"), number.to_string().as_bytes(), 0o644, 0);
        write(&layer.join(format!("of-{number}")), b"x", 0o644, 0);
    }
    let disk = lab.state.join("disk.ext4");
    lab.bases.provide(&layers, &disk).unwrap();
    assert_eq!(debugfs(&disk, "cat /top"), (LAYERS_MAX - 2).to_string());
    assert_eq!(debugfs(&disk, "ls -p /").matches("/of-").count(), LAYERS_MAX - 1);
    let more = [&layers[..], &[lab.layer("more")]].concat();
    let refused = lab.bases.provide(&more, &disk).unwrap_err();
    assert!(
        matches!(&refused, DriverError::Unsupported { what, .. } if what.contains("127 layers")),
        "{refused}"
    );
}

#[test]
fn pods_of_one_image_share_its_disk_and_the_last_one_frees_it() {
    let lab = Lab::new();
    let layer = lab.layer("one");
    write(&layer.join("file"), b"content", 0o644, 0);
    let links: Vec<PathBuf> = (0..4).map(|n| lab.state.join(format!("pod-{n}.ext4"))).collect();
    std::thread::scope(|scope| {
        for link in &links {
            let (bases, layers) = (&lab.bases, [layer.clone()]);
            scope.spawn(move || bases.provide(&layers, link).unwrap());
        }
    });
    let inodes: HashSet<u64> = links.iter().map(|link| fs::metadata(link).unwrap().ino()).collect();
    assert_eq!(inodes.len(), 1, "made once");
    assert_eq!(fs::metadata(&links[0]).unwrap().nlink(), 5);
    let name = name(std::slice::from_ref(&layer));
    assert_eq!(lab.bases(), [format!("{name}.ext4"), format!("{name}.layers")]);

    // A pod that starts again has the same, or the disk of another image.
    lab.bases.provide(std::slice::from_ref(&layer), &links[0]).unwrap();
    assert_eq!(fs::metadata(&links[0]).unwrap().nlink(), 5);

    let (now, later) = (SystemTime::now(), SystemTime::now() + GRACE + Duration::from_secs(1));
    fs::remove_dir_all(&layer).unwrap();
    assert_eq!(lab.bases.collect(later).unwrap(), 0, "pods have it");
    links.iter().for_each(|link| fs::remove_file(link).unwrap());
    assert!(lab.bases.collect(now).unwrap() > 0, "its layer is gone");
    assert!(lab.bases().is_empty());

    // One whose image is there is kept for the next pod, for a day.
    let layer = lab.layer("one");
    lab.bases.provide(&[layer], &links[0]).unwrap();
    fs::remove_file(&links[0]).unwrap();
    assert_eq!(lab.bases.collect(now).unwrap(), 0);
    assert!(lab.bases.collect(later).unwrap() > 0);
    assert!(lab.bases().is_empty());
}

#[test]
fn what_was_half_made_goes_and_too_much_is_refused() {
    let lab = Lab::new();
    let layer = lab.layer("one");
    for number in 0..10 {
        write(&layer.join(format!("file-{number}")), &[1; 5000], 0o644, 0);
    }
    let disk = lab.state.join("disk.ext4");
    for limits in [Limits { entries_max: 10, ..LIMITS }, Limits { bytes_max: 20 * BLOCK_BYTES, ..LIMITS }] {
        let tight = Bases { limits, ..Bases::new(&lab.state) };
        let refused = tight.provide(std::slice::from_ref(&layer), &disk).unwrap_err();
        assert!(
            matches!(&refused, DriverError::Unsupported { what, .. } if what.contains("too large")),
            "{refused}"
        );
        assert!(lab.bases().is_empty() && !disk.exists());
    }
    let missing = lab.bases.provide(&[lab.state.join("nowhere")], &disk).unwrap_err();
    assert!(missing.to_string().contains("nowhere"), "{missing}");
    fs::write(lab.state.join("bases/new-half"), b"half").unwrap();
    lab.bases.sweep().unwrap();
    assert!(lab.bases().is_empty());
    let fits =
        Bases { limits: Limits { entries_max: 11, bytes_max: 21 * BLOCK_BYTES }, ..Bases::new(&lab.state) };
    fits.provide(&[layer], &disk).unwrap();
}
