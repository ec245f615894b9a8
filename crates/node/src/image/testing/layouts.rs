//! Layouts and archives: what goes out comes in again, and what is broken does not.

use super::fixture::{Tar, TestImage, digest, gzip, header, host, told, zstd};
use crate::image::{
    blobs::BlobStore,
    layer_tree::LayerLimits,
    layers::LayerStore,
    layout::{self, ImportedImage, LayoutError},
};
use model::image_reference::Reference;
use std::{fs, io::Cursor};

struct Ground {
    dir: tempfile::TempDir,
    blobs: BlobStore,
}

fn ground() -> Ground {
    let dir = tempfile::tempdir_in("/var/tmp").expect("temp dir");
    let blobs = BlobStore::open(dir.path()).expect("opens");
    Ground { dir, blobs }
}

fn image(text: &str) -> TestImage {
    TestImage::new(&[
        Tar::new().dir("bin", 0o755).file("bin/true", 0o755, text.as_bytes()).bytes(),
        Tar::new().file("top", 0o644, b"top").bytes(),
    ])
}

fn reference(text: &str) -> Reference {
    text.parse().expect("valid")
}

async fn import(ground: &Ground, archive: Vec<u8>) -> Result<Vec<ImportedImage>, LayoutError> {
    layout::import_tar(&ground.blobs, Cursor::new(archive), &host()).await
}

#[tokio::test]
async fn what_is_exported_is_imported_as_the_same_image() {
    let source = ground();
    let test = image("a");
    let stored = test.store(&source.blobs).await;
    let names = vec![reference("alpine:3"), reference("localhost:5000/x/y:z")];
    let exported = vec![ImportedImage { names: names.clone(), digest: test.digest(), image: stored.clone() }];
    let tar = source.dir.path().join("out.tar");
    let file = fs::File::create(&tar).expect("creates");
    layout::export_tar(&source.blobs, exported.clone(), file).await.expect("exports");
    let dir = source.dir.path().join("layout");
    layout::export_dir(&source.blobs, exported.clone(), dir.clone()).await.expect("exports");

    let bytes = fs::read(&tar).expect("reads");
    for archive in [bytes.clone(), gzip(&bytes), zstd(&bytes)] {
        let other = ground();
        let imported = import(&other, archive).await.expect("imports");
        assert_eq!(imported, exported);
        let layers = LayerStore::open(other.dir.path(), LayerLimits::default()).expect("opens");
        imported[0].image.unpack(&other.blobs, &layers, |_| {}).await.expect("unpacks");
        let paths = imported[0].image.layer_paths(&layers);
        assert_eq!(fs::read(paths[1].join("top")).expect("reads"), b"top");
    }
    let other = ground();
    assert_eq!(layout::import_dir(&other.blobs, dir, &host()).await.expect("imports"), exported);
}

/// As docker 1.x to 24 write it: layers in directories, equal ones by a link.
fn docker_archive(test: &TestImage, tars: &[Vec<u8>], tags: &str) -> Vec<u8> {
    let manifest = format!(
        r#"[{{"Config":"{}.json","RepoTags":{tags},"Layers":["one/layer.tar","two/layer.tar"]}}]"#,
        digest(&test.config).hex()
    );
    let config_name = format!("{}.json", digest(&test.config).hex());
    Tar::new()
        .dir("one", 0o755)
        .file("one/VERSION", 0o644, b"1.0")
        .file("one/layer.tar", 0o644, &tars[0])
        .symlink("two/layer.tar", "../one/layer.tar")
        .file(&config_name, 0o644, &test.config)
        .file("manifest.json", 0o644, manifest.as_bytes())
        .file("repositories", 0o644, b"{}")
        .bytes()
}

#[tokio::test]
async fn docker_archives_are_imported() {
    let ground = ground();
    let tar = Tar::new().file("a", 0o644, b"1").bytes();
    let tars = [tar.clone(), tar];
    let test = TestImage::new(&tars);
    let imported =
        import(&ground, docker_archive(&test, &tars, r#"["app:1","Bad Name"]"#)).await.expect("imports");
    assert_eq!(imported.len(), 1);
    assert_eq!(imported[0].names, [reference("app:1")]);
    assert_eq!(imported[0].image.id, digest(&test.config));
    assert_eq!(imported[0].image.layers[0].blob, digest(&tars[0]));
    let untagged = import(&ground, docker_archive(&test, &tars, "null")).await.expect("imports");
    assert!(untagged[0].names.is_empty());
    let layers = LayerStore::open(ground.dir.path(), LayerLimits::default()).expect("opens");
    assert_eq!(imported[0].image.layer_paths(&layers).len(), 1, "equal layers are stacked once");
}

#[tokio::test]
async fn broken_archives_are_refused() {
    let test = image("a");
    let blob_name = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes).hex());
    let index = |test: &TestImage| {
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x","digest":"{}","size":{}}}]}}"#,
            test.digest(),
            test.manifest.len()
        )
    };
    let layout = |version: &str| {
        let text = format!(r#"{{"imageLayoutVersion":"{version}"}}"#);
        Tar::new().file("oci-layout", 0o644, text.as_bytes()).file(
            "index.json",
            0o644,
            index(&test).as_bytes(),
        )
    };
    let windows = TestImage::for_platform(&[Tar::new().bytes()], "windows", "amd64");
    let with_windows = Tar::new()
        .file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", 0o644, index(&windows).as_bytes())
        .file(&blob_name(&windows.manifest), 0o644, &windows.manifest)
        .file(&blob_name(&windows.config), 0o644, &windows.config);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "neither an OCI image layout"),
        (b"no archive at all".repeat(100), "no tar archive"),
        (Tar::new().file("x", 0o644, b"").bytes(), "neither an OCI image layout"),
        (layout("2.0.0").bytes(), "version '2.0.0'"),
        (layout("1.0.0").bytes(), "is not in the store"),
        (layout("1.0.0").file(&blob_name(b"other"), 0o644, b"wrong").bytes(), "has digest"),
        (
            layout("1.0.0").file(&blob_name(&test.manifest), 0o644, &test.manifest).bytes(),
            "is not in the store",
        ),
        (with_windows.bytes(), "windows/amd64"),
        (Tar::new().file("manifest.json", 0o644, b"[]").bytes(), "neither"),
        (
            Tar::new().file("manifest.json", 0o644, br#"[{"Config":"c.json","Layers":[]}]"#).bytes(),
            "no 'c.json'",
        ),
        (
            Tar::new().raw(&header("manifest.json", tar::EntryType::Regular, 5 << 20, 0o644), &[]).bytes(),
            "past the limit",
        ),
    ];
    for (archive, message) in cases {
        let ground = ground();
        let error = import(&ground, archive).await.expect_err(message);
        assert!(told(&error).contains(message), "{message}: {}", told(&error));
        assert!(!error.hint().is_empty());
        assert_eq!(fs::read_dir(ground.dir.path().join("blobs/partial")).expect("lists").count(), 0);
    }
}

#[tokio::test]
async fn names_in_an_archive_are_never_paths() {
    let ground = ground();
    let tar = Tar::new().file("a", 0o644, b"1").bytes();
    let tars = [tar.clone(), tar];
    let test = TestImage::new(&tars);
    let manifest = r#"[{"Config":"../../../etc/passwd","Layers":["/etc/shadow"]}]"#;
    let archive =
        Tar::new().file("manifest.json", 0o644, manifest.as_bytes()).symlink("loop", "loop").bytes();
    assert!(matches!(import(&ground, archive).await, Err(LayoutError::Missing(_))));
    // A link out of the archive names nothing, even where the file exists on this machine.
    let linked = Tar::new()
        .symlink("c.json", "../../../../etc/hostname")
        .file("manifest.json", 0o644, br#"[{"Config":"c.json","Layers":[]}]"#)
        .bytes();
    assert!(matches!(import(&ground, linked).await, Err(LayoutError::Missing(_))));
    assert!(import(&ground, docker_archive(&test, &tars, "[]")).await.is_ok());
}
