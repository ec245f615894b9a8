//! Images that users send, in every format, whole and broken.

use crate::lab::{Lab, names, qemu_img};
use model::{
    error::Code,
    image::{ImageKind, ImageState},
    plan::DiskFormat,
};
use sha2::Digest as _;
use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

const MIB: usize = 1 << 20;

pub fn made(dir: &Path, format: &str) -> Vec<u8> {
    let raw = dir.join("made.raw");
    std::fs::write(&raw, vec![7; 2 * MIB]).unwrap();
    let path = dir.join(format!("made.{format}"));
    qemu_img(&["convert", "-f", "raw", "-O", format, raw.to_str().unwrap()], &path);
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn disks_of_every_format_become_what_vms_stand_on() {
    let lab = Lab::new().await;
    let scratch = tempfile::tempdir().unwrap();
    for (format, kept) in [
        ("qcow2", DiskFormat::Qcow2),
        ("vmdk", DiskFormat::Qcow2),
        ("vdi", DiskFormat::Qcow2),
        ("vhdx", DiskFormat::Qcow2),
        ("raw", DiskFormat::Raw),
    ] {
        let bytes = if format == "raw" { vec![7; 2 * MIB] } else { made(scratch.path(), format) };
        let image = lab.image(format, ImageKind::Disk, &bytes).await.unwrap();
        let Some(ImageState::Ready(content)) = lab.image_state(image.meta.id) else {
            panic!("{format} is not ready")
        };
        assert_eq!(content.format, Some(kept), "{format}");
        assert_eq!(content.virtual_bytes, 2 * MIB as u64, "{format}");
        assert_eq!(content.size_bytes, bytes.len() as u64);
        assert_eq!(content.digest, format!("sha256:{:x}", sha2::Sha256::digest(&bytes)));
        let path =
            node::image::disk::image_path(lab.images.disks().images_dir(), image.meta.id, content.format);
        assert_eq!(crate::lab::virtual_bytes(&path), 2 * MIB as u64);
        // It does not change any more.
        let again = lab.images.take_upload(&image, &bytes[..], None).await.unwrap_err();
        assert_eq!(again.code, Code::Conflict);
        assert!(path.exists());
    }
}

#[tokio::test]
async fn kernels_are_kept_byte_for_byte() {
    let lab = Lab::new().await;
    // A kernel that looks like a disk of another kind is a kernel all the same.
    let bytes = [b"QFI\xfb\0\0\0\x03".as_slice(), &[1; 1000]].concat();
    let image = lab.image("kernel", ImageKind::Kernel, &bytes).await.unwrap();
    let path = node::image::disk::image_path(lab.images.disks().images_dir(), image.meta.id, None);
    assert_eq!(std::fs::read(path).unwrap(), bytes);
}

#[tokio::test]
async fn what_leads_to_other_files_is_refused_and_leaves_nothing() {
    let lab = Lab::new().await;
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("leads");
    qemu_img(
        &["create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/shadow", path.to_str().unwrap()],
        Path::new("1M"),
    );
    let image = lab.new_image("leads", ImageKind::Disk).await;
    let fault = lab.images.take_upload(&image, &std::fs::read(&path).unwrap()[..], None).await.unwrap_err();
    assert_eq!(fault.code, Code::Invalid);
    assert!(!fault.hint.is_empty(), "{fault:?}");
    assert_eq!(lab.image_state(image.meta.id), Some(ImageState::Failed(fault)));
    assert_eq!(names(lab.images.disks().images_dir()), Vec::<String>::new());
    // It can be sent again, right this time.
    lab.images.take_upload(&image, &vec![0; MIB][..], None).await.unwrap();
    assert!(matches!(lab.image_state(image.meta.id), Some(ImageState::Ready(_))));
}

/// Gives some bytes and then fails.
struct Breaks(usize);

impl AsyncRead for Breaks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0 == 0 {
            return Poll::Ready(Err(io::Error::other("the digest is not the promised one")));
        }
        let count = self.0.min(buffer.remaining());
        buffer.put_slice(&vec![0; count]);
        self.0 -= count;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_sender_that_breaks_off_at_the_very_end_leaves_no_image() {
    let lab = Lab::new().await;
    for kind in [ImageKind::Disk, ImageKind::Kernel, ImageKind::Oci] {
        let image = lab.new_image(kind_name(kind), kind).await;
        let fault = lab.images.take_upload(&image, Breaks(5 * MIB), Some(5 * MIB as u64)).await.unwrap_err();
        // These zeros are no archive, which may be told before the sender breaks off.
        let is_told = fault.message.contains("the promised one") || kind == ImageKind::Oci;
        assert!(is_told, "{}", fault.message);
        assert_eq!(lab.image_state(image.meta.id), Some(ImageState::Failed(fault)));
        assert_eq!(names(lab.images.disks().images_dir()), Vec::<String>::new());
    }
}

fn kind_name(kind: ImageKind) -> &'static str {
    match kind {
        ImageKind::Disk => "disk",
        ImageKind::Kernel => "kernel",
        ImageKind::Initrd => "initrd",
        ImageKind::Oci => "oci",
        ImageKind::System => "system",
    }
}

#[tokio::test]
async fn progress_is_told_and_a_vanished_sender_is_forgotten() {
    let mut lab = Lab::new().await;
    let image = lab.new_image("slow", ImageKind::Disk).await;
    let (mut sender, body) = tokio::io::duplex(MIB);
    sender.write_all(&vec![1; MIB / 2]).await.unwrap();
    let images = lab.images.clone();
    let sent = image.clone();
    let upload = tokio::spawn(async move { images.take_upload(&sent, body, Some(MIB as u64)).await });
    let told = async {
        loop {
            if let Some(ImageState::Fetching { done_bytes, total_bytes }) = lab.image_state(image.meta.id) {
                return (done_bytes, total_bytes);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(std::time::Duration::from_secs(20), told).await.unwrap();
    assert_eq!(told, (MIB as u64 / 2, MIB as u64));
    let second = lab.images.take_upload(&image, &[0u8; 512][..], None).await.unwrap_err();
    assert_eq!(second.code, Code::Conflict);
    // The daemon dies in the middle of it.
    upload.abort();
    let _ = upload.await;
    drop(sender);
    lab.restart();
    lab.images.run(image.meta.id).await.unwrap();
    assert_eq!(lab.image_state(image.meta.id), Some(ImageState::Waiting));
    assert_eq!(names(lab.images.disks().images_dir()), Vec::<String>::new());
    let mut body = tokio::io::repeat(3).take(MIB as u64);
    lab.images.take_upload(&image, &mut body, None).await.unwrap();
}

#[tokio::test]
async fn an_image_deleted_while_it_comes_goes_with_its_files() {
    let lab = Lab::new().await;
    let image = lab.new_image("gone", ImageKind::Disk).await;
    lab.control.delete_image(&lab.caller, "gone").await.unwrap();
    let fault = lab.images.take_upload(&image, &vec![0; MIB][..], None).await.unwrap_err();
    assert_eq!(fault.code, Code::NotFound);
    assert_eq!(names(lab.images.disks().images_dir()), Vec::<String>::new());
    // And one that is deleted later goes with the next run.
    let image = lab.image("later", ImageKind::Disk, &vec![0; MIB]).await.unwrap();
    lab.control.delete_image(&lab.caller, "later").await.unwrap();
    assert_eq!(lab.images.keys(), [image.meta.id]);
    lab.images.run(image.meta.id).await.unwrap();
    assert!(lab.images.keys().is_empty());
}
