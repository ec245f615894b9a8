//! What was built, at the client: directories, tars and archives of images, compared byte by byte.

use super::{PROJECT, builds, clean, context, finish, id, lab, runs};
use lab::{Docker, Lab};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

const TEXT: &str = "FROM busybox AS make\n\
    WORKDIR /out/deep/er\n\
    COPY large /out/\n\
    RUN cd /out && ln large linked && ln -s deep/er way && printf 'run me' >script && chmod 4750 script && \
        touch empty 'ä b' && chown 7:8 empty && mkdir -m 0700 closed && echo z >deep/z && echo y >deep-y\n\
    FROM scratch\n\
    COPY --from=make /out /\n";

fn large() -> Vec<u8> {
    (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn made(lab: &Lab) -> std::path::PathBuf {
    let made = context(lab, "made", &[("Dockerfile", TEXT)]);
    fs::write(made.join("large"), large()).expect("writes");
    made
}

/// The regular files of a tar, with their contents, and what links lead to.
fn unpacked(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(path).expect("opens"));
    let mut all = BTreeMap::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_string_lossy().trim_end_matches('/').to_string();
        let mut content = vec![];
        entry.read_to_end(&mut content).expect("reads");
        let link = entry.link_name().expect("a link").map(|link| link.to_string_lossy().into_owned());
        all.insert(path, link.map_or(content, String::into_bytes));
    }
    all
}

#[test]
fn what_is_built_comes_to_the_client() {
    let (lab, docker) = lab();
    let made = made(&lab);
    let at = |name: &str| lab.directory().join(name);
    let told = builds(&docker, &made, &["-o", at("out").to_str().expect("text")]);
    assert!(told.contains("exporting to client directory"), "{told}");
    check_directory(&at("out"));
    // What is there stays, and what is the same comes again.
    fs::write(at("out").join("own"), "own").expect("writes");
    fs::write(at("out").join("empty"), "changed").expect("writes");
    let (tar, oci) = (
        format!("type=tar,dest={}", at("t.tar").display()),
        format!("type=oci,dest={}", at("o.tar").display()),
    );
    let local = format!("type=local,dest={}", at("out").display());
    let all = ["-o", &local, "-o", &tar, "-o", &oci, "-o", "type=image,name=shop/made:1"];
    builds(&docker, &made, &all);
    check_directory(&at("out"));
    assert_eq!(fs::read(at("out").join("own")).expect("reads"), b"own");
    let files = unpacked(&at("t.tar"));
    assert_eq!(files["large"].len().max(files["linked"].len()), large().len());
    assert!(files["large"] == large() || files["linked"] == large());
    assert_eq!((&files["script"][..], &files["way"][..]), (&b"run me"[..], &b"deep/er"[..]));
    let files = unpacked(&at("o.tar"));
    let index: serde_json::Value = serde_json::from_slice(&files["index.json"]).expect("an index");
    let digest =
        index["manifests"][0]["digest"].as_str().expect("a digest").replace("sha256:", "blobs/sha256/");
    let manifest: serde_json::Value = serde_json::from_slice(&files[&digest]).expect("a manifest");
    assert_eq!(manifest["config"]["digest"], id(&docker, "shop/made:1").as_str());
    docker.does(&["rmi", "-f", "shop/made:1"]);
    // By a client's standard output, and back again as an image.
    let archive = format!("type=docker,name=shop/again:2,dest={}", at("d.tar").display());
    builds(&docker, &made, &["-t", "shop/again:2", "-o", &archive]);
    assert!(docker.does(&["images", "-q", "shop/again"]).is_empty(), "no image is kept here");
    docker.does(&["load", "-i", at("d.tar").to_str().expect("text")]);
    assert!(!id(&docker, "shop/again:2").is_empty());
    docker.does(&["rmi", "-f", "shop/again:2"]);
    // Two names of one file are that at the client as well.
    fs::write(made.join("Dockerfile"), "FROM busybox\nRUN echo x >/one && ln /one /another\n")
        .expect("writes");
    builds(&docker, &made, &["-o", at("links").to_str().expect("text")]);
    let seen = |name: &str| fs::metadata(at("links").join(name)).expect("is there").ino();
    assert_eq!(seen("one"), seen("another"));
    clean(&docker);
    finish(lab, &docker);
}

fn check_directory(out: &Path) {
    let seen =
        |name: &str| fs::symlink_metadata(out.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(fs::read(out.join("large")).expect("reads") == large(), "the same bytes");
    assert_eq!(fs::read_link(out.join("way")).expect("a link"), Path::new("deep/er"));
    assert_eq!(fs::read(out.join("script")).expect("reads"), b"run me");
    assert_eq!(seen("script").permissions().mode() & 0o777, 0o750);
    assert_eq!(seen("closed").permissions().mode() & 0o7777, 0o700);
    assert_eq!((seen("empty").len(), seen("ä b").len()), (0, 0));
    assert!(out.join("deep/er").is_dir() && out.join("deep/z").is_file() && out.join("deep-y").is_file());
}

#[test]
fn an_output_that_cannot_be_written_ends_the_build() {
    let (lab, docker) = lab();
    let made = made(&lab);
    let said = super::build(&docker, &made, &["-o", "/proc/nosuch"]);
    assert!(said.code != 0 && said.err.contains("did not take what was built"), "{said:?}");
    clean(&docker);
    for (output, words) in [
        ("type=local,dest=x,mode=delete", "mode=delete"),
        ("type=oci,tar=false,dest=x", "tar=false"),
        ("type=image,push-by-digest=true", "push-by-digest"),
    ] {
        let said = super::build(&docker, &made, &["-o", output]);
        assert!(said.code != 0 && said.err.contains(words), "{words}: {said:?}");
    }
    let told =
        builds(&docker, &made, &["--cache-from", "shop/cache:1", "--cache-to", "type=inline", "-t", "made"]);
    for words in
        ["--cache-from type=registry shop/cache:1 is passed over", "--cache-to type=inline is passed over"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    docker.does(&["rmi", "-f", "made"]);
    finish(lab, &docker);
}

#[test]
fn an_older_client_is_given_files_too() {
    let lab = Lab::new();
    lab.project(PROJECT);
    let docker = Docker::older(&lab, PROJECT);
    let made = made(&lab);
    let out = lab.directory().join("older");
    builds(&docker, &made, &["-o", out.to_str().expect("text")]);
    check_directory(&out);
    let tar = lab.directory().join("older.tar");
    builds(&docker, &made, &["-o", &format!("type=tar,dest={}", tar.display())]);
    let files = unpacked(&tar);
    assert!(files["large"] == large() || files["linked"] == large());
    clean(&docker);
    docker.does(&["builder", "prune", "-a", "-f"]);
    lab.project(PROJECT).empty();
    lab.finish();
}

const REPRODUCED: &str = "FROM busybox AS make\n\
    ARG SOURCE_DATE_EPOCH\n\
    RUN mkdir /d && touch /d/z /d/a && echo \"$SOURCE_DATE_EPOCH\" >/d/at\n\
    FROM busybox\n\
    WORKDIR /made\n\
    COPY --from=make /d ./d\n\
    COPY file .\n\
    RUN touch later\n";
const EPOCH: u64 = 1_700_000_000;

#[test]
fn the_same_input_makes_the_same_image_by_buildkit() {
    let (lab, docker) = lab();
    let again = context(&lab, "again", &[("Dockerfile", REPRODUCED), ("file", "x")]);
    docker.does(&["pull", "busybox"]);
    let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
    let archive = lab.directory().join("again.tar");
    let mut made = vec![];
    for name in ["one", "two"] {
        let output = format!("type=oci,dest={}", archive.display());
        builds(
            &docker,
            &again,
            &["--no-cache", "--build-arg", &epoch, "-o", &output, "-o", &format!("type=image,name={name}")],
        );
        made.push((id(&docker, name), fs::read(&archive).expect("reads")));
    }
    assert_eq!(made[0].0, made[1].0, "the same id");
    let files = unpacked(&archive);
    check_times(&docker, &files);
    assert_eq!(runs(&docker, "two", "cat /made/d/at"), EPOCH.to_string());
    builds(&docker, &again, &["--no-cache", "-t", "three"]);
    assert_ne!(id(&docker, "three"), made[0].0, "without it an image tells when it was made");
    docker.does(&["rmi", "-f", "one", "two", "three"]);
    finish(lab, &docker);
}

/// No time in an image is later than it is of: not in its config, not of a file that the build made.
fn check_times(docker: &Docker, files: &BTreeMap<String, Vec<u8>>) {
    let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).expect("a list");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_string();
    let config: serde_json::Value =
        serde_json::from_slice(&files[&text(&manifest[0]["Config"])]).expect("a config");
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    let history = config["history"].as_array().expect("a history");
    let own = history.iter().rev().take(4);
    assert!(own.clone().all(|line| line["created"] == "2023-11-14T22:13:20Z"), "{history:?}");
    let base = docker.does(&["inspect", "--type", "image", "--format", "{{len .RootFS.Layers}}", "busybox"]);
    let layers = manifest[0]["Layers"].as_array().expect("layers");
    for layer in &layers[base.parse::<usize>().expect("a number")..] {
        let mut archive = tar::Archive::new(&files[&text(layer)][..]);
        for entry in archive.entries().expect("a tar") {
            let entry = entry.expect("an entry");
            let time = entry.header().mtime().expect("a time");
            assert!(time <= EPOCH, "{:?}: {time}", entry.path());
        }
    }
}

#[test]
fn what_is_built_is_pushed() {
    let (lab, docker) = lab();
    let text = "FROM busybox\nRUN echo pushed >/it\nCMD [\"cat\", \"/it\"]\n";
    let made = context(&lab, "pushed", &[("Dockerfile", text)]);
    let name = |tag: &str| format!("127.0.0.1:5000/shop/pushed:{tag}");
    let (one, two, three) = (name("1"), name("2"), name("3"));
    builds(&docker, &made, &["--push", "-t", &one]);
    builds(&docker, &made, &["-o", &format!("type=image,name={two},push=true")]);
    builds(&docker, &made, &["-o", "type=registry", "-t", &three]);
    let first = id(&docker, &one);
    // Gone here, with all that the cache has of it, and back from there.
    docker.does(&["image", "prune", "-a", "-f"]);
    docker.does(&["builder", "prune", "-a", "-f"]);
    docker.refuses(1, "No such", &["inspect", "--type", "image", &first]);
    for name in [&one, &two, &three] {
        docker.does(&["pull", name]);
        assert_eq!(id(&docker, name), first, "{name}");
        assert_eq!(docker.does(&["run", "--rm", name]), "pushed");
    }
    let said = super::build(&docker, &made, &["--push", "-t", "127.0.0.1:5999/shop/pushed:1"]);
    assert!(said.code != 0 && said.err.contains("127.0.0.1:5999"), "a registry that is not there: {said:?}");
    finish(lab, &docker);
}
