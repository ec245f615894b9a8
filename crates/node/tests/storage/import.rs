//! Imports and downloads: from where bytes lie ready, from web servers on loopback, out of appliances, and back again.

use crate::lab::{Lab, names};
use control::image::Import;
use model::{
    error::Code,
    image::{Image, ImageKind, ImageState},
    image_format::FileFormat,
    plan::DiskFormat,
};
use sha2::Digest as _;
use std::io::Write;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

const MIB: usize = 1 << 20;

async fn bytes_of(lab: &Lab, image: &Image, offset: u64) -> Vec<u8> {
    let mut download = lab.images.download(image, offset).await.unwrap();
    let mut bytes = vec![];
    download.body.read_to_end(&mut bytes).await.unwrap();
    if let Some(size) = download.size_bytes {
        assert_eq!(size, offset + bytes.len() as u64);
    }
    bytes
}

fn noise() -> Vec<u8> {
    (0..100_001_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn ova(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn what_was_sent_comes_back_byte_for_byte_with_its_hashes() {
    let lab = Lab::new().await;
    let scratch = tempfile::tempdir().unwrap();
    let vmdk = crate::upload::made(scratch.path(), "vmdk");
    let appliance = ova(&[("box.ovf", b"<Envelope/>"), ("box-disk1.vmdk", &vmdk), ("box.mf", b"x")]);
    let zipped = ova(&[("box.ovf", b"<Envelope/>"), ("disk.img.gz", &gzip(&vec![5; MIB]))]);
    for (name, kind, bytes, format, sent_format) in [
        ("raw", ImageKind::Disk, noise(), Some(DiskFormat::Raw), Some(FileFormat::Raw)),
        ("vmdk", ImageKind::Disk, vmdk.clone(), Some(DiskFormat::Qcow2), Some(FileFormat::Vmdk)),
        ("gz", ImageKind::Disk, gzip(&noise()), Some(DiskFormat::Raw), Some(FileFormat::Raw)),
        ("ova", ImageKind::Disk, appliance.clone(), Some(DiskFormat::Qcow2), Some(FileFormat::Vmdk)),
        ("ova.gz", ImageKind::Disk, gzip(&appliance), Some(DiskFormat::Qcow2), Some(FileFormat::Vmdk)),
        ("ova-gz-disk", ImageKind::Disk, zipped, Some(DiskFormat::Raw), Some(FileFormat::Raw)),
        ("kernel", ImageKind::Kernel, noise(), None, None),
    ] {
        let image = lab.image(name, kind, &bytes).await.unwrap_or_else(|f| panic!("{name}: {f:?}"));
        let Some(ImageState::Ready(content)) = lab.image_state(image.meta.id) else { panic!("{name}") };
        // Kernels are told no format.
        let format = if kind == ImageKind::Kernel { content.format } else { format };
        assert_eq!((content.format, content.sent_format), (format, sent_format), "{name}");
        assert_eq!(content.size_bytes, bytes.len() as u64, "{name}");
        let hashes = content.hashes.unwrap();
        assert_eq!(hashes.sha512, format!("{:x}", sha2::Sha512::digest(&bytes)), "{name}");
        assert_eq!(hashes.md5.len(), 32);
        assert!(bytes_of(&lab, &image, 0).await == bytes, "{name}");
        assert!(bytes_of(&lab, &image, 1000).await == bytes[1000..], "{name}");
        assert_eq!(
            lab.images.download(&image, bytes.len() as u64 + 1).await.err().unwrap().code,
            Code::Invalid
        );
    }
}

#[tokio::test]
async fn an_appliance_has_one_disk() {
    let lab = Lab::new().await;
    let two = ova(&[("a.ovf", b"x"), ("a.vmdk", b"1"), ("b.vmdk", b"2")]);
    let fault = lab.image("two", ImageKind::Disk, &two).await.unwrap_err();
    assert!(fault.message.contains("2 disks") && fault.hint.contains("tar xf"), "{fault:?}");
    let none = ova(&[("a.ovf", b"x"), ("readme", b"2")]);
    assert!(lab.image("none", ImageKind::Disk, &none).await.unwrap_err().message.contains("0 disks"));
    // A disk inside is a stranger's as much as any other.
    let leads = ova(&[("a.ovf", b"x"), ("a.vmdk", b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0")]);
    let fault = lab.image("leads", ImageKind::Disk, &leads).await.unwrap_err();
    assert!(fault.message.contains("refers to another file"), "{fault:?}");
    let plain = ova(&[("a.txt", b"x")]);
    assert!(lab.image("tar", ImageKind::Disk, &plain).await.unwrap_err().message.contains("a tar archive"));
    assert_eq!(names(lab.images.disks().images_dir()), Vec::<String>::new());
}

#[tokio::test]
async fn bytes_that_lie_ready_become_an_image_when_asked_for() {
    let mut lab = Lab::new().await;
    let image = lab.new_image("d", ImageKind::Disk).await;
    let id = image.meta.id;
    lab.images.take_staged(&image, &noise()[..], None).await.unwrap();
    assert_eq!(lab.image_state(id), Some(ImageState::Staged { size_bytes: noise().len() as u64 }));
    // Nothing happens by itself, and a restart forgets nothing.
    lab.restart();
    lab.images.run(id).await.unwrap();
    assert!(matches!(lab.image_state(id), Some(ImageState::Staged { .. })));
    lab.control.import_image(&lab.caller, "d", Import::Staged).await.unwrap();
    lab.images.run(id).await.unwrap();
    assert!(matches!(lab.image_state(id), Some(ImageState::Ready(_))));
    assert!(bytes_of(&lab, &image, 0).await == noise());
    assert_eq!(names(lab.images.disks().images_dir()), [id.to_string()]);

    // What is no disk is refused at the import, and can be sent again.
    let image = lab.new_image("bad", ImageKind::Disk).await;
    let id = image.meta.id;
    lab.images.take_staged(&image, &b"PK\x03\x04zip"[..], None).await.unwrap();
    lab.control.import_image(&lab.caller, "bad", Import::Staged).await.unwrap();
    lab.images.run(id).await.unwrap();
    let Some(ImageState::Failed(fault)) = lab.image_state(id) else { panic!("it was taken") };
    assert!(fault.message.contains("zip"), "{fault:?}");
    lab.images.run(id).await.unwrap();
    assert_eq!(lab.image_state(id), Some(ImageState::Failed(fault)));
    let image = lab.control.expect_upload(&lab.caller, "bad").await.unwrap();
    lab.images.take_upload(&image, &noise()[..], None).await.unwrap();
    lab.control.delete_image(&lab.caller, "bad").await.unwrap();

    // What lies ready for an image that is deleted goes with it.
    let image = lab.new_image("gone", ImageKind::Disk).await;
    lab.images.take_staged(&image, &noise()[..], None).await.unwrap();
    lab.control.delete_image(&lab.caller, "gone").await.unwrap();
    for id in lab.images.keys() {
        lab.images.run(id).await.unwrap();
    }
    assert_eq!(names(lab.images.disks().images_dir()).len(), 1);
}

/// Answers each path with bytes or a redirect, on loopback.
async fn web_server() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (reader, mut writer) = stream.into_split();
                let mut lines = BufReader::new(reader).lines();
                let request = lines.next_line().await.unwrap().unwrap_or_default();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.is_empty() {
                        break;
                    }
                }
                let path = request.split(' ').nth(1).unwrap_or("").to_string();
                let to = |location: String| {
                    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
                        .into_bytes()
                };
                let body = noise();
                let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
                let answer = match path.as_str() {
                    "/disk" => [whole, body].concat(),
                    "/cut" => [whole, body[..1000].to_vec()].concat(),
                    "/elsewhere" => to("http://metadata.invalid/disk".into()),
                    "/inward" => to(format!("http://{here}/disk")),
                    "/relative" => to("/disk".into()),
                    _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
                };
                let _ = writer.write_all(&answer).await;
            });
        }
    });
    here
}

async fn fetch(lab: &Lab, url: String) -> (Image, ImageState) {
    let image = lab.new_image(&format!("w{}", rand::random::<u32>()), ImageKind::Disk).await;
    let id = image.meta.id;
    lab.control.import_image(&lab.caller, &id.to_string(), Import::Web { url }).await.unwrap();
    lab.images.run(id).await.unwrap();
    let image = lab.control.get::<Image>(id).unwrap().record.clone();
    (image, lab.image_state(id).unwrap())
}

#[tokio::test]
async fn the_web_is_asked_only_where_the_operator_allows() {
    let here = web_server().await;
    let lab = Lab::new().await;
    let (_, off) = fetch(&lab, format!("http://{here}/disk")).await;
    let ImageState::Failed(fault) = off else { panic!("{off:?}") };
    assert_eq!(fault.code, Code::Forbidden);
    assert!(fault.hint.contains("--image-host"), "{fault:?}");

    let lab = Lab::with_web_hosts(&[here.to_string(), "localhost".into()]).await;
    let (image, got) = fetch(&lab, format!("http://{here}/disk")).await;
    assert!(matches!(got, ImageState::Ready(_)), "{got:?}");
    assert!(bytes_of(&lab, &image, 0).await == noise());
    for (path, told) in [
        ("/missing", "answers 404"),
        ("/elsewhere", "not among the hosts"),
        // The operator allows this address, but not that a server leads there.
        ("/inward", "not a public address"),
        ("/relative", "not a public address"),
        ("/cut", "did not arrive whole"),
    ] {
        let (_, state) = fetch(&lab, format!("http://{here}{path}")).await;
        let ImageState::Failed(fault) = state else { panic!("{path}: {state:?}") };
        assert!(fault.message.contains(told), "{path}: {fault:?}");
    }
    // A name that leads to this host is not its address.
    let (_, named) = fetch(&lab, "http://localhost/disk".into()).await;
    assert!(
        matches!(&named, ImageState::Failed(f) if f.message.contains("not a public address")),
        "{named:?}"
    );
    assert_eq!(names(lab.images.disks().images_dir()).len(), 1);
}
