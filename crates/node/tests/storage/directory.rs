//! Directories of containers that become disks of VMs, and disks that do not become directories.

use crate::{
    lab::{Lab, names},
    volume::root_image,
};
use model::{error::Code, id::VolumeId, instance::Kind, plan::DiskFormat, volume::Form};
use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// What debugfs prints of a disk, and what it has to say on the way.
fn debugfs(disk: &Path, request: &str) -> String {
    let done = Command::new("/sbin/debugfs").args(["-R", request]).arg(disk).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A volume that a container had, with files in it, and is free again.
async fn left(lab: &Lab, size_gib: u64, thick: bool) -> (VolumeId, PathBuf) {
    let id = lab.volume(size_gib, thick, None).await;
    lab.volumes.run(id).await.unwrap();
    assert_eq!(lab.status(id).form(), Some(Form::Disk), "nobody has had it");
    let container = lab.attach(id, Kind::Container, true).await;
    lab.volumes.run(id).await.unwrap();
    assert_eq!(lab.status(id).form(), Some(Form::Directory));
    let directory = PathBuf::from(lab.status(id).path.unwrap());
    lab.free(id, container).await;
    (id, directory)
}

fn fill(directory: &Path) {
    std::fs::create_dir(directory.join("deep")).unwrap();
    std::fs::write(directory.join("deep/file"), vec![7; 3 << 20]).unwrap();
    chown(directory.join("deep/file"), Some(1_000), Some(33)).unwrap();
    std::fs::set_permissions(directory.join("deep/file"), PermissionsExt::from_mode(0o640)).unwrap();
    std::fs::hard_link(directory.join("deep/file"), directory.join("same")).unwrap();
    // It leads out of the directory, and is a link and no more.
    symlink("/etc/shadow", directory.join("link")).unwrap();
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o2750)).unwrap();
    chown(directory, Some(999), Some(999)).unwrap();
}

#[tokio::test]
async fn files_of_containers_become_the_disk_of_a_vm() {
    let lab = Lab::new().await;
    root_image(&lab).await;
    for thick in [false, true] {
        let (id, directory) = left(&lab, 1, thick).await;
        fill(&directory);
        lab.volumes.run(id).await.unwrap();
        assert_eq!(lab.status(id).form(), Some(Form::Directory), "it stays one while nobody has it");
        lab.attach(id, Kind::Vm, false).await;
        for _ in 0..2 {
            lab.volumes.run(id).await.unwrap();
            let status = lab.status(id);
            assert_eq!(
                (status.form(), status.format, status.fault),
                (Some(Form::Disk), DiskFormat::Raw, None)
            );
        }
        let disk = PathBuf::from(lab.status(id).path.unwrap());
        assert!(!directory.parent().unwrap().exists(), "the files are in one place");
        let metadata = std::fs::metadata(&disk).unwrap();
        assert_eq!(metadata.len(), 1 << 30);
        assert_eq!(metadata.blocks() * 512 >= 1 << 30, thick, "{} blocks", metadata.blocks());
        let copy = lab.dir.path().join("copy");
        debugfs(&disk, &format!("dump /same {}", copy.display()));
        assert_eq!(std::fs::read(&copy).unwrap(), vec![7; 3 << 20]);
        let file = debugfs(&disk, "stat /deep/file");
        for words in ["Mode:  0640", "User:  1000   Group:    33", "Links: 2"] {
            assert!(file.contains(words), "{words}: {file}");
        }
        let root = debugfs(&disk, "stat /");
        assert!(root.contains("Mode:  02750") && root.contains("User:   999   Group:   999"), "{root}");
        let link = debugfs(&disk, "stat /link");
        assert!(link.contains("Fast link dest: \"/etc/shadow\""), "{link}");
        let checked = Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(&disk).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}

#[tokio::test]
async fn containers_in_a_machine_get_a_disk_with_a_file_system() {
    let lab = Lab::new().await;
    let is_ext4 = |disk: &Path| debugfs(disk, "stats").contains("Filesystem magic number:  0xEF53");
    // From nothing, from a blank disk, and from files that containers on the host's kernel left.
    let blank = lab.volume(1, false, None).await;
    lab.volumes.run(blank).await.unwrap();
    let (with_files, directory) = left(&lab, 1, false).await;
    fill(&directory);
    for id in [lab.volume(1, true, None).await, blank, with_files] {
        let pod = lab.attach_in_machine(id, false).await;
        for _ in 0..2 {
            lab.volumes.run(id).await.unwrap();
            let status = lab.status(id);
            assert_eq!((status.form(), status.fault), (Some(Form::Disk), None));
        }
        let disk = PathBuf::from(lab.status(id).path.unwrap());
        assert!(is_ext4(&disk), "{}", disk.display());
        assert_eq!(debugfs(&disk, "ls -p /").contains("deep"), id == with_files);
        // It stays that disk while nobody has it, for the next machine, and is none of the host's directories any more.
        lab.free(id, pod).await;
        lab.volumes.run(id).await.unwrap();
        assert_eq!(lab.status(id).form(), Some(Form::Disk));
        let again = lab.attach_in_machine(id, true).await;
        lab.volumes.run(id).await.unwrap();
        assert!(is_ext4(&disk) && lab.status(id).fault.is_none());
        lab.free(id, again).await;
        // Said at once where it is plain to see.
        match lab.try_attach(id, Kind::Container).await {
            Err(refused) => assert_eq!(refused.code, Code::Unsupported, "{refused}"),
            Ok(_) => {
                lab.volumes.run(id).await.unwrap_err();
                assert_eq!(lab.status(id).fault.unwrap().code, Code::Unsupported);
            }
        }
    }
}

#[tokio::test]
async fn a_crash_on_the_way_loses_no_file() {
    let mut lab = Lab::new().await;
    root_image(&lab).await;
    let (id, directory) = left(&lab, 1, false).await;
    fill(&directory);
    let disks = node::volume::files::disks_dir(lab.dir.path());
    // Half a disk is no disk; the one that was blank may be gone by then.
    std::fs::write(disks.join(format!("{id}.new")), b"half").unwrap();
    std::fs::remove_file(disks.join(format!("{id}.qcow2"))).unwrap();
    lab.restart();
    lab.attach(id, Kind::Vm, false).await;
    lab.volumes.run(id).await.unwrap();
    assert_eq!(names(&disks), [format!("{id}.raw")]);
    // It has its name, and the directory is half removed: the disk is what counts.
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("rest"), b"rest").unwrap();
    lab.restart();
    lab.volumes.run(id).await.unwrap();
    let disk = PathBuf::from(lab.status(id).path.unwrap());
    assert_eq!(disk, disks.join(format!("{id}.raw")));
    assert!(debugfs(&disk, "ls /").contains("deep"), "{}", debugfs(&disk, "ls /"));
}

#[tokio::test]
async fn what_a_crash_left_of_a_directory_is_not_given_to_the_next_container() {
    let lab = Lab::new().await;
    root_image(&lab).await;
    // Of a thick disk its space does not tell whether it was written.
    let (id, directory) = left(&lab, 1, true).await;
    fill(&directory);
    let vm = lab.attach(id, Kind::Vm, false).await;
    lab.volumes.run(id).await.unwrap();
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("rest"), b"rest").unwrap();
    lab.free(id, vm).await;
    lab.attach(id, Kind::Container, false).await;
    lab.volumes.run(id).await.unwrap_err();
    assert_eq!(lab.status(id).fault.unwrap().code, Code::Unsupported);
    assert!(!directory.parent().unwrap().exists(), "it is removed to its end");
    let disk = node::volume::files::disks_dir(lab.dir.path()).join(format!("{id}.raw"));
    assert!(debugfs(&disk, "ls /").contains("deep"));
}

#[tokio::test]
async fn what_does_not_fit_says_so_and_stays_as_it_is() {
    let lab = Lab::new().await;
    root_image(&lab).await;
    let (id, directory) = left(&lab, 1, false).await;
    for number in 0..3 {
        let file = std::fs::File::create(directory.join(format!("large-{number}"))).unwrap();
        sys::file::allocate(&file, 400 << 20).unwrap();
        // Room that was only taken is a hole to mke2fs.
        let block = vec![1; 1 << 20];
        for mib in 0..400 {
            std::os::unix::fs::FileExt::write_all_at(&file, &block, mib << 20).unwrap();
        }
    }
    lab.attach(id, Kind::Vm, false).await;
    lab.volumes.run(id).await.unwrap_err();
    let fault = lab.status(id).fault.unwrap();
    assert_eq!(fault.code, Code::NoCapacity, "{fault:?}");
    assert!(fault.hint.contains("holm volume grow"), "{fault:?}");
    assert_eq!(names(&directory), ["large-0", "large-1", "large-2"]);
}

#[tokio::test]
async fn a_disk_that_was_written_is_not_given_to_a_container() {
    let lab = Lab::new().await;
    root_image(&lab).await;
    for thick in [false, true] {
        let id = lab.volume(1, thick, None).await;
        lab.volumes.run(id).await.unwrap();
        let status = lab.status(id);
        let path = status.path.clone().unwrap();
        let write = ["-f", status.format.as_str(), "-c", "write -P 7 0 512", &path];
        assert!(Command::new("qemu-io").args(write).output().unwrap().status.success());
        lab.attach(id, Kind::Container, false).await;
        lab.volumes.run(id).await.unwrap_err();
        let fault = lab.status(id).fault.unwrap();
        assert_eq!(fault.code, Code::Unsupported, "{fault:?}");
        assert!(
            Path::new(&path).exists()
                && fault.message.contains("a container on the host's kernel is given directories")
        );
    }
    // What is plain to see is refused at once.
    let id = lab.volume(1, false, None).await;
    lab.volumes.run(id).await.unwrap();
    let path = lab.status(id).path.unwrap();
    let write = ["-f", "qcow2", "-c", "write -P 7 0 4M", &path];
    assert!(Command::new("qemu-io").args(write).output().unwrap().status.success());
    lab.volumes.run(id).await.unwrap();
    let refused = lab.try_attach(id, Kind::Container).await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (Code::Unsupported, Some("volume")), "{refused:?}");
    lab.attach(id, Kind::Vm, false).await;
}
