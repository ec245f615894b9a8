//! Layers, honest and hostile. Everything is unpacked into a directory that has a neighbour: no attack may touch it.

use super::fixture::{Tar, digest, gzip, header, open_file, told, zstd};
use crate::image::{
    layer_tree::{LayerFacts, LayerLimits},
    layers::{LayerError, LayerStore},
    tar::TarError,
};
use model::image_digest::Digest;
use std::{
    collections::HashSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

struct Ground {
    dir: tempfile::TempDir,
    store: LayerStore,
}

impl Ground {
    fn new(limits: LayerLimits) -> Self {
        // Not on tmpfs: user attributes and whiteouts are wanted.
        let dir = tempfile::tempdir_in("/var/tmp").expect("temp dir");
        let neighbour = dir.path().join("neighbour");
        fs::create_dir(&neighbour).expect("creates");
        fs::write(neighbour.join("secret"), "untouched").expect("writes");
        let store = LayerStore::open(dir.path(), limits).expect("opens");
        Self { dir, store }
    }

    async fn unpack(&self, tar: &[u8]) -> Result<(PathBuf, LayerFacts), LayerError> {
        let diff_id = digest(tar);
        let result = self.store.unpack(open_file(tar), digest(tar), diff_id).await;
        self.check_neighbour();
        result.map(|facts| (self.store.path(&diff_id), facts))
    }

    fn check_neighbour(&self) {
        let neighbour = self.dir.path().join("neighbour");
        assert_eq!(fs::read_to_string(neighbour.join("secret")).expect("reads"), "untouched");
        assert_eq!(fs::read_dir(&neighbour).expect("lists").count(), 1);
        let mut names: Vec<_> =
            fs::read_dir(self.dir.path()).expect("lists").map(|e| e.expect("entry").file_name()).collect();
        names.sort();
        assert_eq!(names, ["layers", "neighbour"]);
        assert!(!Path::new("/holm-layer-attack").exists());
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.dir.path().join("layers")).expect("lists").count()
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0u8; 256];
    let count = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    Some(value[..count].to_vec())
}

fn capability() -> [u8; 20] {
    // cap_net_bind_service=ep, revision 2 with the effective bit.
    let mut value = [0u8; 20];
    value[..4].copy_from_slice(&0x0200_0001u32.to_le_bytes());
    value[4..8].copy_from_slice(&(1u32 << 10).to_le_bytes());
    value
}

#[tokio::test]
async fn an_honest_layer_is_written_as_it_says() {
    let ground = Ground::new(LayerLimits::default());
    let tar = Tar::new()
        .dir("./", 0o751)
        .dir("bin/", 0o755)
        .owned("bin/su", 0o4755, 0, 42, b"program")
        .pax(&[("SCHILY.xattr.security.capability", &capability()), ("SCHILY.xattr.user.note", b"hi")])
        .owned("bin/web", 0o755, 1000, 1000, b"web")
        .hard_link("bin/also", "bin/su")
        .symlink("etc", "/absolute/target")
        .file("deep/made/up/file", 0o600, b"x")
        .file("zeros", 0o644, &vec![0; 1 << 20])
        .raw(&header("pipe", tar::EntryType::Fifo, 0, 0o622), &[])
        .raw(&header("dev/sda", tar::EntryType::Block, 0, 0o666), &[])
        .bytes();
    let (path, facts) = ground.unpack(&tar).await.expect("unpacks");
    let meta = |name: &str| fs::symlink_metadata(path.join(name)).expect(name);
    assert_eq!(meta("").mode() & 0o7777, 0o751);
    assert_eq!(meta("bin/su").mode() & 0o7777, 0o4755);
    assert_eq!((meta("bin/su").uid(), meta("bin/su").gid()), (0, 42));
    assert_eq!(meta("bin/su").mtime(), 1_000_000_000);
    assert_eq!(meta("bin").mtime(), 1_000_000_000);
    assert_eq!(meta("bin/su").ino(), meta("bin/also").ino());
    assert_eq!(meta("bin/web").uid(), 1000);
    assert_eq!(xattr(&path.join("bin/web"), "security.capability"), Some(capability().to_vec()));
    assert_eq!(xattr(&path.join("bin/web"), "user.note"), Some(b"hi".to_vec()));
    assert_eq!(fs::read_link(path.join("etc")).expect("reads"), Path::new("/absolute/target"));
    assert_eq!(meta("deep/made").mode() & 0o7777, 0o755);
    assert_eq!((meta("zeros").len(), meta("zeros").blocks()), (1 << 20, 0));
    assert!(meta("pipe").file_type().is_fifo());
    assert_eq!(meta("pipe").mode() & 0o7777, 0o622);
    assert!(!path.join("dev/sda").exists());
    assert_eq!((facts.devices_skipped, facts.id_max, facts.entries), (1, 1000, 10));
    let outer = fs::metadata(ground.dir.path().join("layers")).expect("looks");
    assert_eq!(outer.permissions().mode() & 0o7777, 0o700, "set-id programs stay behind a closed door");
}

#[tokio::test]
async fn every_compression_gives_the_same_layer() {
    let tar = Tar::new().file("a", 0o644, b"content").bytes();
    let mut two_members = gzip(&tar[..600]);
    two_members.extend(gzip(&tar[600..]));
    for archive in [tar.clone(), gzip(&tar), zstd(&tar), two_members] {
        let ground = Ground::new(LayerLimits::default());
        let diff_id = digest(&tar);
        ground.store.unpack(open_file(&archive), digest(&archive), diff_id).await.expect("unpacks");
        assert_eq!(fs::read(ground.store.path(&diff_id).join("a")).expect("reads"), b"content");
    }
    let ground = Ground::new(LayerLimits::default());
    let xz = [0xfd, b'7', b'z', b'X', b'Z', 0, 1, 2, 3];
    let error = ground.store.unpack(open_file(&xz), digest(&xz), digest(&xz)).await.expect_err("xz");
    assert!(matches!(error, LayerError::Compression { format: "xz", .. }));
}

#[tokio::test]
async fn whiteouts_become_what_overlayfs_reads() {
    let ground = Ground::new(LayerLimits::default());
    let tar = Tar::new()
        .file("a/.wh.gone", 0o644, b"")
        .dir("b", 0o755)
        .file("b/.wh..wh..opq", 0o644, b"")
        .file("b/new", 0o644, b"n")
        .file("c", 0o644, b"stays")
        .file(".wh.c", 0o644, b"")
        .dir("d", 0o755)
        .file(".wh.d", 0o644, b"")
        .file(".wh.e", 0o644, b"")
        .file("e/inside", 0o644, b"i")
        .file(".wh..wh.plnk", 0o644, b"")
        .bytes();
    let (path, _) = ground.unpack(&tar).await.expect("unpacks");
    let gone = fs::symlink_metadata(path.join("a/gone")).expect("whiteout");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for opaque in ["b", "d", "e"] {
        assert_eq!(xattr(&path.join(opaque), "trusted.overlay.opaque"), Some(b"y".to_vec()), "{opaque}");
    }
    assert_eq!(fs::read(path.join("c")).expect("stays"), b"stays");
    assert_eq!(fs::read(path.join("e/inside")).expect("stays"), b"i");
    assert_eq!(fs::read_dir(&path).expect("lists").count(), 5);
}

#[tokio::test]
async fn later_entries_replace_earlier_ones() {
    let ground = Ground::new(LayerLimits::default());
    let tar = Tar::new()
        .file("a/b/c", 0o644, b"1")
        .file("a", 0o644, b"2")
        .symlink("s", "../neighbour")
        .dir("s", 0o700)
        .file("s/f", 0o644, b"3")
        .file("f", 0o644, b"4")
        .hard_link("f", "f")
        .hard_link("f", "./f")
        .bytes();
    let (path, _) = ground.unpack(&tar).await.expect("unpacks");
    assert_eq!(fs::read(path.join("a")).expect("reads"), b"2");
    assert_eq!(fs::read(path.join("s/f")).expect("reads"), b"3");
    assert_eq!(fs::read(path.join("f")).expect("reads"), b"4");
}

#[tokio::test]
async fn attacks_are_refused_and_leave_nothing() {
    let deep = "d/".repeat(256);
    let long = "n".repeat(256);
    let cases: Vec<(&str, Tar, &str)> = vec![
        ("dot dot", Tar::new().file("../neighbour/secret", 0o644, b"x"), "leads out of the image"),
        ("hidden dot dot", Tar::new().file("a/../../neighbour/x", 0o644, b"x"), "leads out of the image"),
        ("dot dot whiteout", Tar::new().file("../neighbour/.wh.secret", 0o644, b""), "leads out"),
        ("whiteout of the parent", Tar::new().file("a/.wh...", 0o644, b""), "no usable name"),
        ("whiteout of nothing", Tar::new().file(".wh.", 0o644, b""), "no usable name"),
        (
            "file for the root",
            Tar::new().file("./", 0o644, b"").raw(&header(".", tar::EntryType::Regular, 0, 0o644), &[]),
            "no usable name",
        ),
        (
            "through an absolute link",
            Tar::new().symlink("l", "/").file("l/holm-layer-attack", 0o644, b"x"),
            "goes through a symbolic link",
        ),
        (
            "through a relative link",
            Tar::new().symlink("l", "../../neighbour").file("l/secret", 0o644, b"x"),
            "goes through a symbolic link",
        ),
        (
            "through a link made into a chain",
            Tar::new().dir("a", 0o755).symlink("a/b", "..").symlink("a/c", "b/..").file("a/c/x", 0o644, b"x"),
            "goes through a symbolic link",
        ),
        (
            "a loop of links",
            Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", 0o644, b"x"),
            "symbolic link",
        ),
        (
            "whiteout through a link",
            Tar::new().symlink("l", "../../neighbour").file("l/.wh.secret", 0o644, b""),
            "symbolic link",
        ),
        (
            "opaque through a link",
            Tar::new().symlink("l", "../../neighbour").file("l/.wh..wh..opq", 0o644, b""),
            "symbolic link",
        ),
        (
            "directory through a link",
            Tar::new().symlink("l", "../../neighbour").dir("l/x", 0o777),
            "symbolic link",
        ),
        ("hard link out", Tar::new().hard_link("x", "../neighbour/secret"), "leads out of the image"),
        ("hard link to an absolute name", Tar::new().hard_link("x", "/etc/passwd"), "does not have"),
        (
            "hard link through a link",
            Tar::new().symlink("l", "../../neighbour").hard_link("x", "l/secret"),
            "goes through a symbolic link",
        ),
        ("hard link to a directory", Tar::new().dir("d", 0o755).hard_link("x", "d"), "no file"),
        ("hard link to a whiteout", Tar::new().file(".wh.w", 0o644, b"").hard_link("x", "w"), "no file"),
        ("through a file", Tar::new().file("f", 0o644, b"").file("f/x", 0o644, b""), "no directory"),
        ("empty symbolic link", Tar::new().symlink("x", ""), "without a target"),
        ("owner -1", Tar::new().pax(&[("uid", b"4294967295")]).file("x", 0o644, b""), "4294967295"),
        (
            "too deep",
            Tar::new().pax(&[("path", format!("{deep}x").as_bytes())]).file("x", 0o644, b""),
            "deep",
        ),
        ("long name", Tar::new().pax(&[("path", long.as_bytes())]).file("x", 0o644, b""), "too long"),
        (
            "long path",
            Tar::new().pax(&[("path", "x/".repeat(2049).as_bytes())]).file("x", 0o644, b""),
            "past the limit",
        ),
        ("zero in a name", Tar::new().pax(&[("path", b"a\0b")]).file("x", 0o644, b""), "zero byte"),
    ];
    for (name, tar, message) in cases {
        let ground = Ground::new(LayerLimits::default());
        let error = ground.unpack(&tar.bytes()).await.expect_err(name);
        assert!(told(&error).contains(message), "{name}: {}", told(&error));
        assert_eq!(ground.leftovers(), 0, "{name}");
    }
}

#[tokio::test]
async fn absolute_names_stay_below_the_root() {
    let ground = Ground::new(LayerLimits::default());
    let (path, _) =
        ground.unpack(&Tar::new().file("/holm-layer-attack", 0o644, b"x").bytes()).await.expect("unpacks");
    assert!(path.join("holm-layer-attack").exists());
}

#[tokio::test]
async fn attributes_for_overlayfs_are_not_taken_from_archives() {
    let ground = Ground::new(LayerLimits::default());
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/neighbour"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"x"),
            ("SCHILY.xattr.security.capability", b"short"),
        ])
        .dir("d", 0o755)
        .bytes();
    let (path, facts) = ground.unpack(&tar).await.expect("unpacks");
    assert_eq!(facts.xattrs_skipped, 4);
    assert_eq!(xattr(&path.join("d"), "trusted.overlay.redirect"), None);
    assert_eq!(xattr(&path.join("d"), "user.overlay.opaque"), None);
}

#[tokio::test]
async fn limits_hold() {
    let small = LayerLimits {
        entries_max: 3,
        unpacked_bytes_max: 64 << 10,
        expansion_free_bytes: 32 << 10,
        expansion_ratio_max: 4,
        free_bytes_min: 0,
    };
    let ground = Ground::new(small);
    let many = (0..4).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), 0o644, b"")).bytes();
    assert!(matches!(ground.unpack(&many).await, Err(LayerError::Limit { what: "entries", limit: 3, .. })));
    let large = Tar::new().file("x", 0o644, &vec![7; 65 << 10]).bytes();
    assert!(matches!(ground.unpack(&large).await, Err(LayerError::Limit { what: "unpacked bytes", .. })));
    let bomb = Tar::new().file("x", 0o644, &vec![0; 60 << 10]).bytes();
    for archive in [gzip(&bomb), zstd(&bomb)] {
        let error = ground
            .store
            .unpack(open_file(&archive), digest(&archive), digest(&bomb))
            .await
            .expect_err("a bomb");
        assert!(matches!(error, LayerError::Limit { limit: 4, .. }), "{error}");
    }
    let full = Ground::new(LayerLimits { free_bytes_min: u64::MAX, ..LayerLimits::default() });
    let error = full.unpack(&Tar::new().file("x", 0o644, b"1").bytes()).await.expect_err("no room");
    assert!(matches!(error, LayerError::NoRoom { .. }));
    assert_eq!(ground.leftovers() + full.leftovers(), 0);
}

#[tokio::test]
async fn a_layer_with_another_diff_id_is_refused() {
    let ground = Ground::new(LayerLimits::default());
    let tar = Tar::new().file("x", 0o644, b"1").bytes();
    let other = digest(b"other");
    let error =
        ground.store.unpack(open_file(&gzip(&tar)), digest(&gzip(&tar)), other).await.expect_err("tampered");
    assert!(
        matches!(error, LayerError::DiffId { expected, actual } if expected == other && actual == digest(&tar))
    );
    // Bytes after the end of the archive count as well.
    let mut longer = tar.clone();
    longer.extend_from_slice(b"tail");
    let error =
        ground.store.unpack(open_file(&longer), digest(&longer), digest(&tar)).await.expect_err("tail");
    assert!(matches!(error, LayerError::DiffId { .. }));
    let cut = &gzip(&tar)[..40];
    let error = ground.store.unpack(open_file(cut), digest(cut), digest(&tar)).await.expect_err("cut");
    assert!(
        matches!(error, LayerError::Archive { source: TarError::Io(_) | TarError::Truncated, .. }),
        "{error:?}"
    );
    assert_eq!(ground.leftovers(), 0);
}

/// An image cannot have a layer that is here by naming it: its own archive must unpack to it.
#[tokio::test]
async fn a_layer_that_is_here_is_given_for_its_archives_alone() {
    let ground = Ground::new(LayerLimits::default());
    let (tar, mine) =
        (Tar::new().file("x", 0o644, b"1").bytes(), gzip(&Tar::new().file("y", 0o644, b"2").bytes()));
    let diff_id = digest(&tar);
    let unpack = |archive: Vec<u8>| {
        let ground = &ground;
        async move { ground.store.unpack(open_file(&archive), digest(&archive), diff_id).await }
    };
    let facts = unpack(tar.clone()).await.expect("unpacks");
    for _ in 0..2 {
        let error = unpack(mine.clone()).await.expect_err("another one's");
        assert!(matches!(error, LayerError::DiffId { expected, .. } if expected == diff_id), "{error:?}");
        assert_eq!(unpack(gzip(&tar)).await.expect("the same files"), facts);
    }
    // What is known of a layer survives a torn file.
    let known = ground.dir.path().join("layers").join(format!("{}.json", diff_id.hex()));
    assert!(fs::read_to_string(&known).expect("reads").contains(&digest(&gzip(&tar)).to_string()));
    fs::write(&known, "{").expect("tears");
    unpack(gzip(&tar)).await.expect("is looked through again");
}

#[tokio::test]
async fn a_crash_leaves_only_what_the_next_start_sweeps() {
    let ground = Ground::new(LayerLimits::default());
    let half = ground.dir.path().join("layers/tmp-half");
    fs::create_dir_all(half.join("a/b")).expect("creates");
    let store = LayerStore::open(ground.dir.path(), LayerLimits::default()).expect("reopens");
    assert!(!half.exists());
    assert!(!store.contains(&digest(b"half")));
}

#[tokio::test]
async fn two_pulls_unpack_a_layer_once_and_the_collector_waits() {
    let ground = Ground::new(LayerLimits::default());
    let tar = Tar::new().file("x", 0o644, &vec![9; 1 << 20]).bytes();
    let diff_id = digest(&tar);
    let (one, two) = tokio::join!(
        ground.store.unpack(open_file(&tar), digest(&tar), diff_id),
        ground.store.unpack(open_file(&tar), digest(&tar), diff_id)
    );
    assert_eq!(one.expect("unpacks"), two.expect("finds it"));
    let hour = Duration::from_secs(3600);
    let later = SystemTime::now() + 2 * hour;
    let kept: HashSet<Digest> = HashSet::from([diff_id]);
    assert_eq!(ground.store.collect(&kept, hour, later).expect("collects"), 0);
    assert_eq!(ground.store.collect(&HashSet::new(), hour, SystemTime::now()).expect("collects"), 0);
    assert!(ground.store.contains(&diff_id));
    assert_eq!(ground.store.collect(&HashSet::new(), hour, later).expect("collects"), 1);
    assert_eq!(ground.leftovers(), 0);
}
