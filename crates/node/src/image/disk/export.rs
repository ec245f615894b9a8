//! An image goes out of a volume: all its layers become one file that stands alone and never changes again.

use super::{
    DiskError, DiskImage, DiskStore, OUTPUT, WorkDir, at,
    import::{Hashed, Sums},
    volume::{opened, top_facts},
};
use crate::image::{
    cancel::{StopFlag, StoppableReader},
    disk_format::DetectedFormat,
};
use model::plan::{BackingFile, DiskFormat};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufReader},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
};

/// Bytes hashed at a time.
const HASH_BYTES: usize = 1 << 20;

impl DiskStore {
    pub(super) fn export_blocking(
        &self,
        id: model::id::ImageId,
        files: &[BackingFile],
        format: DiskFormat,
        flag: &StopFlag,
    ) -> Result<DiskImage, DiskError> {
        let virtual_bytes = top_facts(files)?.virtual_bytes;
        let work = WorkDir::create(&self.images, self.settings.sandbox_user)?;
        let (input, opened) = opened(files)?;
        let arguments = ["convert", "-O", format.as_str(), &input, OUTPUT];
        self.qemu_img_with(&arguments, &work.path, opened, self.convert_limits(virtual_bytes), flag)?;
        let output = work.path.join(OUTPUT);
        chown(&output, Some(0), Some(0)).map_err(at("chown", &output))?;
        fs::set_permissions(&output, fs::Permissions::from_mode(0o444)).map_err(at("close", &output))?;
        let file = File::open(&output).map_err(at("open", &output))?;
        file.sync_all().map_err(at("flush", &output))?;
        let Sums { digest, hashes, count: sent_bytes } = sums_of(file, flag).map_err(at("read", &output))?;
        // The directory appears with the file in it, or not at all.
        let place = work.path.join("image");
        DirBuilder::new().mode(0o700).create(&place).map_err(at("create", &place))?;
        let name = super::file_name(format);
        fs::rename(&output, place.join(&name)).map_err(at("rename", &output))?;
        let dir = self.images.join(id.to_string());
        let _ = fs::remove_dir_all(&dir);
        fs::rename(&place, &dir).map_err(at("rename", &place))?;
        File::open(&*self.images).and_then(|dir| dir.sync_all()).map_err(at("flush", &self.images))?;
        let path = dir.join(name);
        let allocated_bytes = fs::metadata(&path).map_err(at("look at", &path))?.blocks() * 512;
        let detected = match format {
            DiskFormat::Raw => DetectedFormat::Raw,
            DiskFormat::Qcow2 => DetectedFormat::Qcow2,
        };
        Ok(DiskImage { path, format, detected, digest, hashes, sent_bytes, virtual_bytes, allocated_bytes })
    }
}

fn sums_of(file: File, flag: &StopFlag) -> io::Result<Sums> {
    let mut bytes =
        BufReader::with_capacity(HASH_BYTES, Hashed::new(StoppableReader::new(file, flag.clone()), None));
    io::copy(&mut bytes, &mut io::sink())?;
    bytes.into_inner().finish()
}
