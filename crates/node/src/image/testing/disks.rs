//! Disks, honest and hostile, with the real qemu-img.

use super::fixture::{digest, gzip, noise, told, zstd};
use crate::image::{
    cancel::run_blocking,
    disk::{DiskError, DiskImage, DiskSettings, DiskSource, DiskStore, Expect},
    disk_format::{DetectedFormat, FormatError},
    sandbox::{self, SandboxError, SandboxLimits, SandboxUser},
};
use model::{
    id::ImageId,
    plan::{BackingFile, DiskFormat},
    volume::Provisioning,
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const MIB: u64 = 1 << 20;

struct Ground {
    dir: tempfile::TempDir,
    store: DiskStore,
}

/// Closed to all but root, as a state directory may be.
fn closed_dir() -> tempfile::TempDir {
    let closed = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(closed).tempdir_in("/var/tmp").expect("temp dir")
}

fn ground() -> Ground {
    let dir = closed_dir();
    let store = DiskStore::open(dir.path(), DiskSettings::default()).expect("opens");
    Ground { dir, store }
}

impl Ground {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn import(&self, content: &[u8]) -> Result<DiskImage, DiskError> {
        let result = self.import_as(content, Expect::Disk).await;
        self.check_no_waste();
        result
    }

    async fn import_as(&self, content: &[u8], expect: Expect) -> Result<DiskImage, DiskError> {
        let input = std::io::Cursor::new(content.to_vec());
        self.store.import(new_id(), input, expect, None, |_| {}).await
    }

    fn check_no_waste(&self) {
        for dir in [self.dir.path().join("images"), self.dir.path().to_path_buf()] {
            for entry in fs::read_dir(dir).expect("lists") {
                let name = entry.expect("entry").file_name();
                assert!(!name.to_string_lossy().starts_with("tmp-"), "{name:?} is left");
            }
        }
    }
}

fn new_id() -> ImageId {
    uuid::Uuid::new_v4().to_string().parse().expect("an id")
}

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output().expect("qemu-img is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The content of a disk, up to the last byte that is not zero.
fn content(dir: &Path, path: &Path, format: DiskFormat) -> Vec<u8> {
    let raw = dir.join(format!("raw-{}", uuid::Uuid::new_v4()));
    let names = [path.to_str().expect("text"), raw.to_str().expect("text")];
    qemu_img(&["convert", "-f", format.as_str(), "-O", "raw", names[0], names[1]]);
    let mut content = fs::read(&raw).expect("reads");
    fs::remove_file(&raw).expect("removes");
    let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    content.truncate(end);
    content
}

/// A disk of 8 MiB with noise at its start, in any format.
fn disk_in(ground: &Ground, format: &str, options: &[&str]) -> Vec<u8> {
    let raw = ground.path("source.raw");
    let mut bytes = noise(5, 100_000);
    bytes.resize(8 << 20, 0);
    fs::write(&raw, bytes).expect("writes");
    let made = ground.path("source.disk");
    let names = [raw.to_str().expect("text"), made.to_str().expect("text")];
    let mut arguments = vec!["convert", "-f", "raw", "-O", format];
    arguments.extend(options);
    arguments.extend(names);
    qemu_img(&arguments);
    let bytes = fs::read(&made).expect("reads");
    fs::remove_file(&made).expect("removes");
    fs::remove_file(&raw).expect("removes");
    bytes
}

#[tokio::test]
async fn disks_of_every_hypervisor_are_imported() {
    for (format, options, detected, kept) in [
        ("raw", &[][..], DetectedFormat::Raw, DiskFormat::Raw),
        ("qcow2", &["-c"], DetectedFormat::Qcow2, DiskFormat::Qcow2),
        ("qcow2", &["-o", "compat=0.10"], DetectedFormat::Qcow2, DiskFormat::Qcow2),
        ("vmdk", &["-o", "subformat=monolithicSparse"], DetectedFormat::Vmdk, DiskFormat::Qcow2),
        ("vmdk", &["-o", "subformat=streamOptimized"], DetectedFormat::Vmdk, DiskFormat::Qcow2),
        ("vdi", &[], DetectedFormat::Vdi, DiskFormat::Qcow2),
        ("vhdx", &[], DetectedFormat::Vhdx, DiskFormat::Qcow2),
        ("vpc", &["-o", "subformat=dynamic,force_size"], DetectedFormat::Vpc, DiskFormat::Qcow2),
        ("vpc", &["-o", "subformat=fixed,force_size"], DetectedFormat::Vpc, DiskFormat::Qcow2),
        ("parallels", &[], DetectedFormat::Parallels, DiskFormat::Qcow2),
    ] {
        let ground = ground();
        let bytes = disk_in(&ground, format, options);
        let image =
            ground.import(&bytes).await.unwrap_or_else(|e| panic!("{format} {options:?}: {}", told(&e)));
        assert_eq!((image.detected, image.format), (detected, kept), "{format}");
        assert_eq!((image.digest, image.sent_bytes), (digest(&bytes), bytes.len() as u64), "{format}");
        assert_eq!(image.virtual_bytes, 8 * MIB, "{format}");
        assert_eq!(content(ground.dir.path(), &image.path, image.format), noise(5, 100_000), "{format}");
        let meta = fs::metadata(&image.path).expect("looks");
        assert_eq!((meta.uid(), meta.permissions().mode() & 0o777), (0, 0o444), "{format}");
        let outer = fs::metadata(ground.path("images")).expect("looks");
        assert_eq!(outer.permissions().mode() & 0o777, 0o700);
    }
}

#[tokio::test]
async fn compressed_raw_disks_are_unpacked_and_zeros_take_no_room() {
    let ground = ground();
    let mut raw = noise(9, 5000);
    raw.resize(4 << 20, 0);
    for bytes in [gzip(&raw), zstd(&raw)] {
        let image = ground.import(&bytes).await.expect("imports");
        assert_eq!((image.virtual_bytes, image.digest), (4 * MIB, digest(&bytes)));
        assert!(image.allocated_bytes < MIB, "{}", image.allocated_bytes);
        assert_eq!(content(ground.dir.path(), &image.path, image.format), noise(9, 5000));
    }
    let odd = ground.import(&[1u8; 700]).await.expect("imports");
    assert_eq!(odd.virtual_bytes, 1024, "padded to whole sectors");
    let kernel = gzip(b"a kernel");
    let kept = ground.import_as(&kernel, Expect::Bytes).await.expect("imports");
    assert_eq!(fs::read(&kept.path).expect("reads"), kernel, "not unpacked");
}

#[tokio::test]
async fn images_that_refer_to_other_files_are_refused() {
    let ground = ground();
    let secret = ground.path("secret");
    fs::write(&secret, vec![b's'; 1 << 20]).expect("writes");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).expect("opens up");
    let disk = ground.path("attack");
    let (secret, disk_name) = (secret.to_str().expect("text"), disk.to_str().expect("text"));
    let mut attacks = Vec::new();
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, disk_name]);
    attacks.push(("backing file", fs::read(&disk).expect("reads")));
    fs::remove_file(&disk).expect("removes");
    let options = format!("data_file={secret},data_file_raw=on");
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, disk_name, "1M"]);
    attacks.push(("data file", fs::read(&disk).expect("reads")));
    fs::remove_file(&disk).expect("removes");
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 2048 FLAT \"{secret}\" 0\n"
    );
    attacks.push(("extents", descriptor.into_bytes()));
    // A header without a size, which makes QEMU take the descriptor inside at its word.
    let mut vmdk = vec![0; 64 << 10];
    vmdk[..4].copy_from_slice(b"KDMV");
    vmdk[4] = 1;
    vmdk[28] = 1;
    vmdk[36] = 1;
    let inner = format!("createType=\"monolithicFlat\"\nRW 2048 FLAT \"{secret}\" 0\n");
    vmdk[512..512 + inner.len()].copy_from_slice(inner.as_bytes());
    attacks.push(("extents", vmdk));
    for (what, bytes) in attacks {
        let error = ground.import(&bytes).await.expect_err(what);
        assert!(matches!(error, DiskError::Format(FormatError::External { .. })), "{what}: {}", told(&error));
    }
    assert_eq!(fs::read_dir(ground.path("images")).expect("lists").count(), 0);
}

#[tokio::test]
async fn damaged_and_wrong_images_are_refused() {
    let ground = ground();
    let mut cut = disk_in(&ground, "qcow2", &[]);
    cut.truncate(200);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (cut, "qemu-img"),
        (disk_in(&ground, "vmdk", &["-o", "subformat=monolithicSparse"])[..70_000].to_vec(), "qemu-img"),
        (Vec::new(), "empty"),
        (vec![0xfd, b'7', b'z', b'X', b'Z', 0, 1, 2], "xz"),
        (b"PK\x03\x04zip".to_vec(), "zip"),
    ];
    for (bytes, message) in cases {
        let error = ground.import(&bytes).await.expect_err(message);
        assert!(told(&error).contains(message), "{message}: {}", told(&error));
        assert!(!error.hint().is_empty());
    }
    let wrong = digest(b"other");
    let result = ground.store.import(new_id(), &[1u8; 512][..], Expect::Disk, Some(wrong), |_| {}).await;
    assert!(matches!(result, Err(DiskError::Mismatch { expected, .. }) if expected == wrong));
    let small = DiskSettings { image_bytes_max: 1000, ..DiskSettings::default() };
    let store = DiskStore::open(ground.dir.path(), small).expect("opens");
    let bomb = std::io::Cursor::new(gzip(&vec![0; 4 << 20]));
    let result = store.import(new_id(), bomb, Expect::Disk, None, |_| {}).await;
    assert!(matches!(result, Err(DiskError::TooLarge { size_bytes_max: 1000 })));
    ground.check_no_waste();
}

#[tokio::test]
async fn volumes_are_made_thin_and_thick_from_images() {
    for format in ["raw", "qcow2"] {
        let ground = ground();
        let image = ground.import(&disk_in(&ground, format, &[])).await.expect("imports");
        let source = DiskSource::Files(vec![BackingFile { path: image.path.clone(), format: image.format }]);
        let (thin, thick) = (ground.path("thin"), ground.path("thick"));
        let size = 64 * MIB;
        let made =
            ground.store.create(thin.clone(), source.clone(), size, Provisioning::Thin).await.expect("makes");
        let facts = ground.store.facts(thin.clone(), made.format).await.expect("looks");
        assert_eq!(facts.virtual_bytes, size);
        assert!(facts.allocated_bytes < 2 * MIB, "{facts:?}");
        assert_eq!(content(ground.dir.path(), &thin, made.format), noise(5, 100_000), "{format}");
        let made = ground
            .store
            .create(thick.clone(), source.clone(), size, Provisioning::Thick)
            .await
            .expect("makes");
        assert_eq!((made.format, made.needs_source), (DiskFormat::Raw, false));
        let facts = ground.store.facts(thick.clone(), made.format).await.expect("looks");
        assert!(facts.virtual_bytes == size && facts.allocated_bytes >= size, "{facts:?}");
        assert_eq!(content(ground.dir.path(), &thick, made.format), noise(5, 100_000), "{format}");
        let meta = fs::metadata(&thick).expect("looks");
        assert_eq!((meta.uid(), meta.permissions().mode() & 0o777, meta.nlink()), (0, 0o644, 1));

        let again = ground.store.create(thick.clone(), source.clone(), size, Provisioning::Thick).await;
        assert!(matches!(again, Err(DiskError::Io { operation: "create", .. })), "never over another file");
        let small = ground.store.create(ground.path("small"), source, 4 * MIB, Provisioning::Thin).await;
        assert!(matches!(small, Err(DiskError::Shrinks { .. })));
        let odd = ground.store.create(ground.path("odd"), DiskSource::Empty, 1000, Provisioning::Thin).await;
        assert!(matches!(odd, Err(DiskError::Size)));
        ground.check_no_waste();
    }
}

#[tokio::test]
async fn volumes_grow_and_go() {
    let ground = ground();
    let image = ground.import(&disk_in(&ground, "qcow2", &[])).await.expect("imports");
    let from_image = DiskSource::Files(vec![BackingFile { path: image.path, format: image.format }]);
    for (name, source, provisioning) in [
        ("a", DiskSource::Empty, Provisioning::Thin),
        ("b", DiskSource::Empty, Provisioning::Thick),
        ("c", from_image.clone(), Provisioning::Thin),
        ("d", from_image, Provisioning::Thick),
    ] {
        let path = ground.path(name);
        let made = ground.store.create(path.clone(), source, 16 * MIB, provisioning).await.expect("makes");
        let before = content(ground.dir.path(), &path, made.format);
        for _ in 0..2 {
            let grown = ground.store.grow(path.clone(), made.format, 32 * MIB, provisioning).await;
            grown.unwrap_or_else(|e| panic!("{name}: {}", told(&e)));
        }
        let facts = ground.store.facts(path.clone(), made.format).await.expect("looks");
        assert_eq!(facts.virtual_bytes, 32 * MIB, "{name}");
        assert_eq!(facts.allocated_bytes >= 32 * MIB, provisioning == Provisioning::Thick, "{name}");
        assert_eq!(content(ground.dir.path(), &path, made.format), before, "{name}");
        assert_eq!(fs::metadata(&path).expect("looks").uid(), 0);
        let less = ground.store.grow(path.clone(), made.format, 16 * MIB, provisioning).await;
        assert!(matches!(less, Err(DiskError::Shrinks { .. })));
        ground.store.delete(path.clone()).await.expect("removes");
        ground.store.delete(path).await.expect("again is fine");
    }
    ground.check_no_waste();
}

#[tokio::test]
async fn a_thick_disk_without_room_fails_when_it_is_made() {
    let ground = ground();
    let place = ground.path("small");
    fs::create_dir(&place).expect("creates");
    sys::mount::tmpfs(&place, 8 * MIB, 0o700).expect("mounts");
    let result =
        ground.store.create(place.join("disk"), DiskSource::Empty, 64 * MIB, Provisioning::Thick).await;
    let left = fs::read_dir(&place).expect("lists").count();
    sys::mount::unmount(&place).expect("unmounts");
    assert!(matches!(result, Err(DiskError::NoRoom { .. })), "{result:?}");
    assert_eq!(left, 0);
}

#[tokio::test]
async fn an_image_without_room_is_refused_while_it_comes() {
    let dir = closed_dir();
    sys::mount::tmpfs(dir.path(), 96 * MIB, 0o700).expect("mounts");
    let store = DiskStore::open(dir.path(), DiskSettings::default()).expect("opens");
    let input = std::io::Read::take(std::io::repeat(7), 1 << 30);
    let result = store.import(new_id(), input, Expect::Disk, None, |_| {}).await;
    let staged = store.stage(new_id(), std::io::Read::take(std::io::repeat(7), 1 << 30)).await;
    let left = fs::read_dir(dir.path().join("images")).expect("lists").count();
    sys::mount::unmount(dir.path()).expect("unmounts");
    for error in [result.expect_err("no room"), staged.expect_err("no room")] {
        assert!(matches!(error, DiskError::Short { .. }), "{}", told(&error));
        assert_eq!(error.code(), model::error::Code::NoCapacity);
    }
    assert_eq!(left, 0);
}

#[tokio::test]
async fn the_sandbox_holds_and_ends_what_it_runs() {
    let dir = closed_dir();
    fs::write(dir.path().join("secret"), "s").expect("writes");
    let work = dir.path().join("work");
    fs::create_dir(&work).expect("creates");
    std::os::unix::fs::chown(&work, Some(65534), Some(65534)).expect("chowns");
    let limits = SandboxLimits {
        timeout: Duration::from_secs(10),
        memory_bytes_max: 1 << 30,
        cpu_s_max: 5,
        file_bytes_max: 1 << 20,
    };
    let run = |script: &'static str, limits: SandboxLimits| {
        let work = work.clone();
        async move {
            run_blocking(move |flag| {
                sandbox::run("sh", &["-c", script], &work, vec![], SandboxUser::default(), limits, &flag)
            })
            .await
            .expect("no panic")
        }
    };
    let output =
        run("id -u; id -G; grep -E 'NoNewPrivs|CapEff' /proc/self/status; env | sort; echo x > here", limits);
    let output = String::from_utf8(output.await.expect("runs")).expect("text");
    for part in ["65534\n65534\n", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "LC_ALL=C"] {
        assert!(output.contains(part), "{part} in {output}");
    }
    assert!(!output.contains("HOME="), "{output}");
    assert!(work.join("here").exists());
    let refused = run("cat ../secret", limits).await.expect_err("closed");
    assert!(
        matches!(&refused, SandboxError::Refused { complaint, .. } if complaint.contains("denied")),
        "{refused}"
    );
    let large = run("head -c 2000000 /dev/zero > big", limits).await;
    assert!(matches!(large, Err(SandboxError::Refused { .. })), "{large:?}");
    let hangs = SandboxLimits { timeout: Duration::from_millis(200), ..limits };
    assert!(matches!(run("sleep 60", hangs).await, Err(SandboxError::Timeout { .. })));
    let missing = run_blocking({
        let work = work.clone();
        move |flag| {
            sandbox::run("holm-no-such-program", &[], &work, vec![], SandboxUser::default(), limits, &flag)
        }
    });
    assert!(matches!(missing.await.expect("no panic"), Err(SandboxError::Start { .. })));
}
