//! Files of containers by the real `docker` command: copied in and out, compared with the image, exported; and containers
//! that would lead the copying out of themselves.

use crate::docker::{PROJECT, finish, lab};
use api::v1::types::instance::CreateInstance;
use lab::{Docker, Lab, eventually};
use std::{
    collections::HashSet,
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Runs a shell in a container, and gives what it says.
fn shell(docker: &Docker, container: &str, script: &str) -> String {
    docker.does(&["exec", container, "sh", "-c", script])
}

/// What `tar` says of an archive that a command writes.
fn listed(docker: &Docker, arguments: &[&str]) -> String {
    let archive = docker.command(arguments).output().expect("docker");
    assert!(archive.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&archive.stderr));
    let place = tempfile::NamedTempFile::new().expect("a file");
    fs::write(place.path(), &archive.stdout).expect("writes");
    let listed =
        Command::new("tar").args(["--numeric-owner", "-tvf", text(place.path())]).output().expect("tar");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

/// A tree with what trees have: an empty directory, a program, a link, a long name, holes and zeros.
fn tree(lab: &Lab) -> PathBuf {
    let tree = lab.directory().join("tree");
    fs::create_dir_all(tree.join("empty")).expect("makes");
    fs::create_dir_all(tree.join("deep/deeper")).expect("makes");
    fs::write(tree.join("deep/deeper").join("n".repeat(180)), "a long name\n").expect("writes");
    fs::write(tree.join("program"), "#!/bin/sh\necho it runs\n").expect("writes");
    fs::set_permissions(tree.join("program"), fs::Permissions::from_mode(0o755)).expect("sets");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 31 % 251) as u8).collect();
    fs::write(tree.join("bytes"), bytes).expect("writes");
    symlink("program", tree.join("link")).expect("links");
    tree
}

fn same(one: &Path, other: &Path) {
    let compared =
        Command::new("diff").args(["-r", "--no-dereference", text(one), text(other)]).output().expect("diff");
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
}

#[test]
fn docker_copies_files_of_running_and_stopped_containers() {
    let (lab, docker) = lab();
    let tree = tree(&lab);
    let sleeps = ["busybox", "sleep", "3600"];
    let volumes = ["run", "-d", "--name", "box", "-v", "data:/data", "-v", "inner:/outer/inner"];
    docker.does(&[&volumes[..], &sleeps].concat());
    shell(&docker, "box", "echo kept >/outer/inner/kept");
    copy_both_ways(&lab, &docker, &tree, "running");
    assert_eq!(shell(&docker, "box", "/srv/running/program"), "it runs");
    assert_eq!(shell(&docker, "box", "stat -c %u:%g:%a /srv/running/program"), "0:0:755");

    // Ids are the container's own on both ways.
    shell(&docker, "box", "echo mine >/srv/owned; chown 7:8 /srv/owned; chmod 4750 /srv/owned");
    let owned = listed(&docker, &["cp", "box:/srv/owned", "-"]);
    assert!(owned.starts_with("-rwsr-x--- 7/8 "), "{owned}");
    let archived = docker.command(&["cp", "box:/srv/owned", "-"]).output().expect("docker").stdout;
    assert!(sent(&docker, &archived, "box:/tmp").0);
    assert_eq!(shell(&docker, "box", "stat -c %u:%g:%a /tmp/owned"), "7:8:4750");
    docker.does(&["run", "-d", "--name", "nobody", "-u", "nobody", "busybox", "sleep", "3600"]);
    docker.does(&["cp", "-a", text(&tree.join("program")), "nobody:/tmp"]);
    assert_eq!(
        shell(&docker, "nobody", "stat -c %u:%g /tmp/program"),
        "65534:65534",
        "-a gives it to its user"
    );

    // Into the volume, and onto what is there.
    docker.does(&["cp", text(&tree), "box:/data"]);
    assert_eq!(shell(&docker, "box", "sh /data/tree/link"), "it runs");
    refuse_what_cannot_be(&lab, &docker, &tree);
    mounts_are_spared(&lab, &docker);
    rights_are_the_containers_own(&lab, &docker);
    long_chains_are_told(&lab, &docker);

    docker.does(&["stop", "-t", "0", "box"]);
    mounts_are_spared(&lab, &docker);
    copy_both_ways(&lab, &docker, &tree, "stopped");
    docker.does(&["cp", text(&tree.join("program")), "box:/data/second"]);
    let owned = listed(&docker, &["cp", "box:/srv/owned", "-"]);
    assert!(owned.starts_with("-rwsr-x--- 7/8 "), "{owned}");
    docker.does(&["start", "box"]);
    assert_eq!(shell(&docker, "box", "/srv/stopped/program; sh /data/second"), "it runs\nit runs");
    assert_eq!(
        shell(&docker, "box", "stat -c %u:%g:%a /srv/stopped/program /srv/owned"),
        "0:0:755\n7:8:4750"
    );

    // The way in which files are taken out of images, and put into containers before they run.
    docker.does(&["create", "--name", "fresh", "busybox", "sh", "/tmp/program"]);
    docker.does(&["cp", "fresh:/var/www/index.html", text(&lab.directory().join("page"))]);
    assert_eq!(fs::read_to_string(lab.directory().join("page")).expect("reads"), "It works!\n");
    docker.does(&["cp", text(&tree.join("program")), "fresh:/tmp/program"]);
    assert_eq!(docker.does(&["start", "-a", "fresh"]), "it runs");
    docker.does(&["rm", "-f", "box", "nobody", "fresh"]);
    docker.does(&["create", "--name", "never", "busybox"]);
    docker.does(&["cp", "never:/etc/passwd", text(&lab.directory().join("passwd"))]);
    docker.does(&["rm", "never"]);
    finish(lab);
}

/// A tree in and out, under other names, and single files.
fn copy_both_ways(lab: &Lab, docker: &Docker, tree: &Path, name: &str) {
    let out = |what: &str| lab.directory().join(format!("{what}-{name}"));
    docker.does(&["cp", text(tree), &format!("box:/tmp/{name}")]);
    // A directory that is there gets the tree in it; one that is not becomes it.
    docker.does(&["cp", text(&tree.join("empty")), "box:/srv"]);
    docker.does(&["cp", &format!("{}/.", text(tree)), &format!("box:/srv/{name}")]);
    docker.does(&["cp", &format!("box:/srv/{name}"), text(&out("whole"))]);
    same(tree, &out("whole"));
    fs::create_dir_all(out("into")).expect("makes");
    docker.does(&["cp", &format!("box:/tmp/{name}/."), text(&out("into"))]);
    same(tree, &out("into"));
    docker.does(&["cp", &format!("box:tmp/{name}"), text(&out("into"))]);
    same(tree, &out("into").join(name));
    docker.does(&["cp", &format!("box:/tmp/{name}/bytes"), text(&out("bytes"))]);
    same(&tree.join("bytes"), &out("bytes"));
    // A link as such, and what it leads to.
    docker.does(&["cp", &format!("box:/tmp/{name}/link"), text(&out("link"))]);
    assert_eq!(fs::read_link(out("link")).expect("a link"), Path::new("program"));
    docker.does(&["cp", "-L", &format!("box:/tmp/{name}/link"), text(&out("followed"))]);
    same(&tree.join("program"), &out("followed"));
    let listed = listed(docker, &["cp", &format!("box:/tmp/{name}/empty/"), "-"]);
    assert!(listed.trim_end().ends_with(" empty/"), "{listed}");
}

/// What is mounted in a container is not replaced, and what lies in it not removed, by an archive that would.
fn mounts_are_spared(lab: &Lab, docker: &Docker) {
    let is_spared = |name: &str, path: &str| {
        let (status, said) = put(lab, &hostile_archive(lab, name, None), path);
        assert!(status == 400 && said.contains("a mount of the container"), "{name}: {status} {said}");
    };
    is_spared("data", "/");
    // A directory with a volume below it.
    is_spared("outer", "/");
    if docker.says(&["exec", "box", "true"]).code == 0 {
        is_spared("hosts", "/etc");
        let kept =
            shell(docker, "box", "sh /data/tree/link; cat /outer/inner/kept; grep -c localhost /etc/hosts");
        assert!(kept.starts_with("it runs\nkept\n"), "{kept}");
    }
}

/// Sends an archive as clients do that let directories be replaced; docker's own never asks for that.
fn put(lab: &Lab, archive: &[u8], path: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(lab.run().join("docker.sock")).expect("the door");
    let head = format!(
        "PUT /containers/box/archive?path={path} HTTP/1.1\r\nHost: holm\r\nX-Holm-Project: {PROJECT}\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        archive.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(archive)).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.unwrap_or_else(|| panic!("{answer}")), answer)
}

/// Capabilities of a file that name the root of some user namespace, as archives of other machines have them, are the
/// container's root's, like those that name none.
fn rights_are_the_containers_own(lab: &Lab, docker: &Docker) {
    let place = lab.directory().join("rights");
    fs::create_dir_all(&place).expect("makes");
    // `struct vfs_ns_cap_data` of linux/capability.h: CAP_CHOWN, permitted and effective.
    let record = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let plain = record(&[0x0200_0001, 1, 0, 0, 0]);
    let pack = ["--format=pax", "--xattrs", "--xattrs-include=security.capability"];
    let tar = |arguments: &[&str]| {
        let made =
            Command::new("tar").args(pack).args(["-C", text(&place)]).args(arguments).output().expect("tar");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    for (name, value) in [("own", plain.clone()), ("strange", record(&[0x0300_0001, 1, 0, 0, 0, 77_777]))] {
        fs::write(place.join(name), "hi\n").expect("writes");
        sys::file::set_xattr(&place.join(name), "security.capability", &value).expect("sets");
        let archive = lab.directory().join("rights.tar");
        tar(&["-cf", text(&archive), name]);
        let (was_taken, said) = sent(docker, &fs::read(&archive).expect("reads"), "box:/srv");
        assert!(was_taken, "{said}");
        let packed = docker.command(&["cp", &format!("box:/srv/{name}"), "-"]).output().expect("docker");
        fs::write(&archive, packed.stdout).expect("writes");
        fs::remove_file(place.join(name)).expect("removes");
        tar(&["-xf", text(&archive)]);
        let has = sys::file::get_xattr(&place.join(name), "security.capability").expect("reads");
        assert_eq!(has, Some(plain.clone()), "{name}");
    }
}

/// A chain of links, each as long as a text can be, is told of without walking all of it.
fn long_chains_are_told(lab: &Lab, docker: &Docker) {
    let script = "mkdir -p /tmp/chain; cd /tmp/chain; long=$(printf './%.0s' $(seq 1 1900)); deep=$(printf 'd/%.0s' $(seq 1 500)); \
        mkdir -p $deep; for n in $(seq 1 39); do ln -s $deep$(printf '../%.0s' $(seq 1 500))$((n+1)) $n; done; \
        echo end >40; ln -s ${long}40 short; ln -s short twice";
    shell(docker, "box", script);
    let told = docker.does(&["cp", "box:/tmp/chain/twice", text(&lab.directory().join("twice"))]);
    assert_eq!(told, "");
    docker.does(&["cp", "-L", "box:/tmp/chain/twice", text(&lab.directory().join("end"))]);
    assert_eq!(fs::read_to_string(lab.directory().join("end")).expect("reads"), "end\n");
    let began = std::time::Instant::now();
    docker.does(&["cp", "box:/tmp/chain/1", text(&lab.directory().join("first"))]);
    eprintln!("a link at the head of a long chain took {:?}", began.elapsed());
    assert!(fs::read_link(lab.directory().join("first")).expect("a link").starts_with("d/d"));
}

fn refuse_what_cannot_be(lab: &Lab, docker: &Docker, tree: &Path) {
    let back = text(lab.directory()).to_string();
    docker.refuses(1, "Could not find the file /nosuch in container box", &["cp", "box:/nosuch", &back]);
    docker.refuses(
        1,
        "Could not find the file /nosuch in container box",
        &["cp", text(tree), "box:/nosuch/deeper"],
    );
    docker.refuses(1, "No such container: nosuch", &["cp", "nosuch:/etc", &back]);
    let archive = hostile_archive(lab, "running", None);
    let (was_taken, said) = sent(docker, &archive, "box:/srv");
    assert!(!was_taken && said.contains("cannot overwrite directory running with non-directory"), "{said}");
    docker.does(&["run", "-d", "--name", "sealed", "--read-only", "busybox", "sleep", "3600"]);
    docker.refuses(1, "read-only", &["cp", text(tree), "sealed:/tmp"]);
    docker.does(&["cp", "sealed:/etc/passwd", &back]);
    docker.does(&["stop", "-t", "0", "sealed"]);
    docker.refuses(1, "read-only", &["cp", text(tree), "sealed:/tmp"]);
    docker.does(&["rm", "-f", "sealed"]);
}

#[test]
fn a_container_leads_no_copy_out_of_itself() {
    let (lab, docker) = lab();
    let outside = lab.directory().join("outside");
    fs::create_dir_all(&outside).expect("makes");
    fs::write(outside.join("secret"), "the host's\n").expect("writes");
    let file = lab.directory().join("file");
    fs::write(&file, "copied\n").expect("writes");
    docker.does(&["run", "-d", "--name", "box", "busybox", "sleep", "3600"]);
    // Links out of the root, by an absolute path and by climbing: both lead to the container's own.
    let script = format!(
        "mkdir -p /tmp/real {out}; ln -s {out} /tmp/absolute; ln -s ../../../../../../../..{out} /tmp/climbing; \
         ln -s /proc/1/root{out} /tmp/magic; echo inside >{out}/secret",
        out = outside.display()
    );
    shell(&docker, "box", &script);
    for link in ["absolute", "climbing"] {
        let got = lab.directory().join(format!("got-{link}"));
        docker.does(&["cp", &format!("box:/tmp/{link}/secret"), text(&got)]);
        assert_eq!(fs::read_to_string(got).expect("reads"), "inside\n", "{link}");
        docker.does(&["cp", text(&file), &format!("box:/tmp/{link}/{link}")]);
        assert_eq!(shell(&docker, "box", &format!("cat {}/{link}", outside.display())), "copied");
    }
    assert_ne!(docker.says(&["cp", "box:/tmp/magic/secret", text(&lab.directory().join("magic"))]).code, 0);
    assert_ne!(docker.says(&["cp", text(&file), "box:/tmp/magic/x"]).code, 0);
    // An archive whose names climb, and one that goes through a link that it brings itself.
    for (name, link) in [("../../../outside/climbed", None), ("way/through", Some(&outside))] {
        let archive = hostile_archive(&lab, name, link.map(PathBuf::as_path));
        let (was_taken, said) = sent(&docker, &archive, "box:/tmp/real");
        assert!(link.is_some() || !was_taken && said.contains("leads out of the directory"), "{said}");
    }
    // Links that change while files are copied through them.
    let swapping = format!(
        "while :; do ln -sfn /tmp/real /tmp/swap; ln -sfn {out} /tmp/swap; rm -rf /tmp/dir; mkdir /tmp/dir; \
         rmdir /tmp/dir; ln -s {out} /tmp/dir; done",
        out = outside.display()
    );
    docker.does(&["exec", "-d", "box", "sh", "-c", &swapping]);
    for round in 0..20 {
        let name = format!("round-{round}");
        let got = lab.directory().join(&name);
        docker.says(&["cp", text(&file), &format!("box:/tmp/swap/{name}")]);
        docker.says(&["cp", text(&file), &format!("box:/tmp/dir/{name}")]);
        docker.says(&["cp", "box:/tmp/swap/secret", text(&got)]);
        if let Ok(text) = fs::read_to_string(&got) {
            assert_ne!(text, "the host's\n", "round {round}");
        }
    }
    let names: Vec<_> =
        fs::read_dir(&outside).expect("lists").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names, ["secret"], "nothing came to the host");
    assert_eq!(fs::read_to_string(outside.join("secret")).expect("reads"), "the host's\n");
    docker.does(&["rm", "-f", "box"]);
    finish(lab);
}

/// An archive with a file under this name, and a link `way` before it if one is wanted.
fn hostile_archive(lab: &Lab, name: &str, link: Option<&Path>) -> Vec<u8> {
    let place = lab.directory().join("hostile");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).expect("makes");
    fs::write(place.join("file"), "bad\n").expect("writes");
    let run = |arguments: &[&str]| {
        let made =
            Command::new("tar").args(["-C", text(&place), "-P"]).args(arguments).output().expect("tar");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let archive = lab.directory().join("hostile.tar");
    let first = if let Some(link) = link {
        symlink(link, place.join("way")).expect("links");
        run(&["-cf", text(&archive), "way"]);
        "-rf"
    } else {
        "-cf"
    };
    run(&[first, text(&archive), "--transform", &format!("s|.*|{name}|"), "file"]);
    fs::read(archive).expect("reads")
}

/// Sends an archive to a container's directory, and tells whether it was taken, and what was said.
fn sent(docker: &Docker, archive: &[u8], target: &str) -> (bool, String) {
    let mut child = docker.start(&["cp", "-", target]);
    let _ = child.stdin.take().expect("its input").write_all(archive);
    let output = child.wait_with_output().expect("docker");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn docker_tells_and_exports_what_a_container_holds() {
    let (lab, docker) = lab();
    docker.does(&["run", "-d", "--name", "box", "-v", "data:/data", "busybox", "sleep", "3600"]);
    assert_eq!(docker.does(&["diff", "box"]), "", "a container that did nothing changed nothing");
    let script = "echo new >/srv-new; mkdir -p /opt/a/b; echo x >/opt/a/b/c; rm /var/www/index.html; \
                  chmod 700 /home; echo more >>/etc/passwd; rm -rf /root; mkdir /root; echo vol >/data/kept; \
                  ln /srv-new /srv-too";
    shell(&docker, "box", script);
    let wanted = "C /etc\nC /etc/passwd\nC /home\nA /opt\nA /opt/a\nA /opt/a/b\nA /opt/a/b/c\nC /root\nA /srv-new\n\
                  A /srv-too\nC /var\nC /var/www\nD /var/www/index.html";
    assert_eq!(docker.does(&["diff", "box"]), wanted);
    export(&lab, &docker, "running");
    docker.does(&["stop", "-t", "0", "box"]);
    assert_eq!(docker.does(&["diff", "box"]), wanted);
    export(&lab, &docker, "stopped");
    docker.does(&["start", "box"]);
    shell(&docker, "box", "head -c 1500000 /dev/zero >/big; head -c 3000000 /dev/zero >/data/big");
    let told = || docker.does(&["system", "df", "--format", "{{.Type}} {{.Size}}"]);
    assert!(told().contains("Containers 1.5MB"), "{}", told());
    docker.does(&["stop", "-t", "0", "box"]);
    assert!(told().contains("Containers 1.5MB"), "{}", told());
    docker.does(&["rm", "box"]);
    finish(lab);
}

fn export(lab: &Lab, docker: &Docker, name: &str) {
    let file = lab.directory().join(format!("{name}.tar"));
    docker.does(&["export", "-o", text(&file), "box"]);
    let root = lab.directory().join(name);
    fs::create_dir_all(&root).expect("makes");
    let unpacked = Command::new("tar")
        .args(["--numeric-owner", "-xpf", text(&file), "-C", text(&root)])
        .output()
        .expect("tar");
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    assert_eq!(fs::read_to_string(root.join("srv-new")).expect("reads"), "new\n");
    let number =
        |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(root.join(name)).expect("is there"));
    assert_eq!(number("srv-new"), number("srv-too"), "one file under two names");
    assert!(fs::metadata(root.join("bin/busybox")).expect("is there").len() > 100_000);
    assert!(!root.join("var/www/index.html").exists());
    for empty in ["data", "proc", "dev", "sys"] {
        let count = fs::read_dir(root.join(empty)).expect("a directory").count();
        assert_eq!(count, 0, "{empty}: volumes and what the kernel shows are no part of it");
    }
}

/// A restart in the pod's own process waits for nobody, and never puts a second overlay on the same files.
#[test]
fn a_container_that_restarts_while_its_files_are_read_stays_on_the_same_file_system() {
    let (lab, docker) = lab();
    let script = "stat -c %d / >>/runs; while [ ! -e /go ]; do sleep 0.1; done; rm /go; exit 3";
    docker.does(&["run", "-d", "--name", "box", "--restart", "always", "busybox", "sh", "-c", script]);
    shell(&docker, "box", "head -c 20000000 /dev/zero >/big");
    let runs = || docker.says(&["exec", "box", "cat", "/runs"]).out;
    let mut unread = docker.start(&["export", "box"]);
    for past in 1..4 {
        eventually("it runs", Duration::from_secs(30), || runs().lines().count() == past);
        if past == 3 {
            break;
        }
        shell(&docker, "box", "touch /go");
    }
    assert!(unread.try_wait().expect("waits").is_none(), "its files are still being read");
    let devices: HashSet<String> = runs().lines().map(str::to_string).collect();
    assert_eq!(devices.len(), 1, "file systems of its runs: {devices:?}");
    let _ = unread.kill();
    let _ = unread.wait();
    docker.does(&["rm", "-f", "box"]);
    finish(lab);
}

#[test]
fn files_of_a_container_with_a_disk_of_its_own() {
    let (lab, docker) = lab();
    let shop = lab.project("shop");
    shop.launch(&CreateInstance { disk_gib: Some(1), ..shop.idle_container("box") });
    shell(&docker, "box", "echo mine >/kept");
    let (file, back) = (lab.directory().join("file"), lab.directory().join("back"));
    fs::write(&file, "sent\n").expect("writes");
    for state in ["running", "stopped"] {
        if state == "stopped" {
            docker.does(&["stop", "-t", "0", "box"]);
        }
        docker.does(&["cp", text(&file), &format!("box:/{state}")]);
        docker.does(&["cp", "box:/kept", text(&back)]);
        assert_eq!(fs::read_to_string(&back).expect("reads"), "mine\n", "{state}");
        assert!(docker.does(&["diff", "box"]).lines().any(|line| line == format!("A /{state}")), "{state}");
    }
    // Two at a time share the disk's one mount; one that nobody reads from keeps the container down for a while alone.
    let mut unread = docker.start(&["cp", "box:/", "-"]);
    docker.does(&["cp", text(&file), "box:/third"]);
    docker.does(&["start", "box"]);
    assert_eq!(shell(&docker, "box", "cat /running /stopped /third /kept"), "sent\nsent\nsent\nmine");
    let _ = unread.kill();
    let _ = unread.wait();
    docker.does(&["rm", "-f", "box"]);
    finish(lab);
}
