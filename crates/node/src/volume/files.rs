//! Where the layers of disks lie, and which of them anybody still needs. See [`model::volume`] for what layers are.
//!
//! ```text
//!  <state>/volumes/disks/<id>.qcow2 | <id>.raw    layer 0; its name is its format, which is never guessed from its bytes
//!  <state>/volumes/disks/<id>.<n>.qcow2           layer n
//!  <state>/volumes/disks/<id>.new                 layer 0, made, not named yet: of no use after a crash
//! ```

use crate::image::disk::image_path;
use model::{
    error::Fault,
    id::{ImageId, VolumeId},
    image::{Image, ImageContent, ImageSource, ImageState, ImageStatus},
    plan::{BackingFile, DiskFormat},
    snapshot::Snapshot,
    volume::{Ground, Volume, VolumeStatus},
};
use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use store::{Store, View};

const FORMATS: [DiskFormat; 2] = [DiskFormat::Qcow2, DiskFormat::Raw];

/// Directory of the disks' files, closed to all but root.
pub fn disks_dir(state: &Path) -> PathBuf {
    state.join("volumes").join("disks")
}

/// Puts disks into their directory that lie beside it, where they had their place before there were layers. Whoever has
/// one open keeps it. Blocking.
///
/// # Errors
/// When a file cannot be moved.
pub fn take_in(volumes: &Path, disks: &Path) -> io::Result<()> {
    let mut is_any = false;
    for entry in std::fs::read_dir(volumes)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_file() && name.to_str().and_then(parse).is_some() {
            std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o644))?;
            std::fs::rename(entry.path(), disks.join(name))?;
            is_any = true;
        }
    }
    if is_any {
        std::fs::File::open(disks)?.sync_all()?;
        std::fs::File::open(volumes)?.sync_all()?;
    }
    Ok(())
}

/// Paths of one daemon's disks and images.
#[derive(Debug, Clone)]
pub struct DiskFiles {
    disks: PathBuf,
    images: PathBuf,
}

impl DiskFiles {
    /// Files in these two directories.
    pub fn new(disks: PathBuf, images: PathBuf) -> Self {
        Self { disks, images }
    }

    /// Directory of the disks.
    pub fn dir(&self) -> &Path {
        &self.disks
    }

    /// Where a layer has its place, in this format.
    pub fn path(&self, volume: VolumeId, layer: u32, format: DiskFormat) -> PathBuf {
        match layer {
            0 => self.disks.join(format!("{volume}.{}", format.as_str())),
            layer => self.disks.join(format!("{volume}.{layer}.{}", format.as_str())),
        }
    }

    /// Where layer 0 is made.
    pub fn unfinished(&self, volume: VolumeId) -> PathBuf {
        self.disks.join(format!("{volume}.new"))
    }

    /// The file of a layer, if it is there.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn layer(&self, volume: VolumeId, layer: u32) -> io::Result<Option<BackingFile>> {
        for format in FORMATS {
            let path = self.path(volume, layer, format);
            if path.try_exists()? {
                return Ok(Some(BackingFile { path, format }));
            }
        }
        Ok(None)
    }

    /// Whether a disk's lowest layer is a raw file, which stands on nothing.
    pub fn is_raw(&self, volume: VolumeId) -> bool {
        self.path(volume, 0, DiskFormat::Raw).exists()
    }

    /// The files of a stretch of layers, uppermost first.
    ///
    /// # Errors
    /// `NotFound` when one is missing.
    pub fn stretch(&self, volume: VolumeId, floor: u32, layer: u32) -> io::Result<Vec<BackingFile>> {
        let missing = |layer: u32| {
            let what = format!("layer {layer} of volume {volume} is not there");
            io::Error::new(io::ErrorKind::NotFound, what)
        };
        let of_layer = |layer| self.layer(volume, layer)?.ok_or_else(|| missing(layer));
        (floor..=layer).rev().map(of_layer).collect()
    }

    /// The files that a ground consists of, uppermost first; `image` is what is known of the image at its bottom.
    ///
    /// # Errors
    /// `NotFound` when one is missing.
    pub fn ground(&self, ground: &Ground, image: Option<&ImageContent>) -> io::Result<Vec<BackingFile>> {
        let mut files = vec![];
        for stretch in &ground.stretches {
            files.extend(self.stretch(stretch.volume, stretch.floor, stretch.layer)?);
            if stands_alone(&files) {
                return Ok(files);
            }
        }
        if let Some(id) = ground.image {
            let content = image.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            let format = content.format.unwrap_or(DiskFormat::Raw);
            files.push(BackingFile { path: image_path(&self.images, id, content.format), format });
        }
        Ok(files)
    }

    /// Layers of a volume of which there is a file.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn layers(&self, volume: VolumeId) -> io::Result<Vec<(u32, PathBuf)>> {
        let of_volume = self.all()?.into_iter().filter(|(id, ..)| *id == volume);
        let mut layers: Vec<(u32, PathBuf)> = of_volume.map(|(_, layer, path)| (layer, path)).collect();
        layers.sort();
        Ok(layers)
    }

    /// Layers of all volumes, of which there are files.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn all(&self) -> io::Result<Vec<(VolumeId, u32, PathBuf)>> {
        let mut all = vec![];
        for entry in std::fs::read_dir(&self.disks)? {
            let entry = entry?;
            if let Some((id, layer)) = entry.file_name().to_str().and_then(parse) {
                all.push((id, layer, entry.path()));
            }
        }
        Ok(all)
    }
}

/// Whether the lowest of these files is all of its disk: a raw file stands on nothing.
pub fn stands_alone(files: &[BackingFile]) -> bool {
    files.last().is_some_and(|file| file.format == DiskFormat::Raw)
}

/// Volume and layer of a file's name.
fn parse(name: &str) -> Option<(VolumeId, u32)> {
    let (id, rest) = name.split_once('.')?;
    let layer = match rest.split_once('.') {
        Some((layer, _)) => layer.parse().ok()?,
        None if rest == "new" => return None,
        None => 0,
    };
    Some((id.parse().ok()?, layer))
}

/// The content of an image that is here.
pub fn image_content(store: &Store, id: ImageId) -> Option<ImageContent> {
    let status = store.get::<ImageStatus>(&id.to_string())?;
    match &status.record.state {
        ImageState::Ready(content) => Some(content.clone()),
        _ => None,
    }
}

/// Whether layers can be stood on.
#[derive(Debug)]
pub enum Frozen {
    /// Nobody writes to them any more.
    Yes,
    /// A guest or the volumes' loop has yet to move on.
    NotYet,
    /// They cannot be had.
    Never(Fault),
}

/// Whether nobody writes to the layers of this ground any more.
pub fn frozen(store: &Store, ground: &Ground) -> Frozen {
    for stretch in &ground.stretches {
        let key = stretch.volume.to_string();
        // What is left of a deleted volume is left as it was.
        if store.get::<Volume>(&key).is_none() {
            continue;
        }
        match store.get::<VolumeStatus>(&key) {
            Some(status) if status.record.layer > stretch.layer => {}
            Some(status) => match &status.record.fault {
                Some(fault) => return Frozen::Never(fault.clone()),
                None => return Frozen::NotYet,
            },
            None => return Frozen::NotYet,
        }
    }
    Frozen::Yes
}

/// Everything that stands on layers of volumes, or holds them.
pub struct Needs {
    volumes: Vec<Volume>,
    grounds: Vec<Ground>,
}

impl Needs {
    /// As the records say now, all at one moment: what stood on a layer by one record may by then do so by another.
    pub fn of(store: &Store, files: &DiskFiles) -> Self {
        let (volumes, mut grounds) = store.mirror().view(|view| {
            let volumes: Vec<Volume> = view.list::<Volume>().map(|v| v.record.clone()).collect();
            let snapshots = view.list::<Snapshot>().map(|s| s.record.ground.clone());
            let images = view.list::<Image>().filter_map(|image| match &image.record.source {
                ImageSource::Volume { ground, .. } if is_unmade(view, image.record.meta.id) => {
                    Some(ground.clone())
                }
                _ => None,
            });
            (volumes, snapshots.chain(images).collect::<Vec<Ground>>())
        });
        // A thick copy needs nothing more of its source once it is made.
        let is_made_alone = |volume: &Volume| volume.floor == 0 && files.is_raw(volume.meta.id);
        grounds.extend(volumes.iter().filter(|v| !is_made_alone(v)).map(Volume::ground));
        Self { volumes, grounds }
    }

    /// Whether this layer must stay. So must one above the layer that takes writes, of which the records know nothing.
    pub fn has(&self, volume: VolumeId, layer: u32) -> bool {
        self.volumes.iter().any(|v| v.meta.id == volume && layer >= v.floor)
            || self.grounds.iter().any(|ground| ground.has(volume, layer))
    }
}

/// Whether an image of a volume still reads its layers.
fn is_unmade(view: &View<'_>, id: ImageId) -> bool {
    let status = view.get::<ImageStatus>(&id.to_string());
    match status.map(|status| &status.record.state) {
        Some(ImageState::Ready(_)) => false,
        // One that failed for a reason that may pass is tried again.
        Some(ImageState::Failed(fault)) => fault.code.is_passing(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_from_before_there_were_layers_are_taken_in() {
        let volumes = tempfile::tempdir().unwrap();
        let disks = volumes.path().join("disks");
        let id = VolumeId::from_random([1; 16]);
        std::fs::create_dir(&disks).unwrap();
        std::fs::create_dir(volumes.path().join(format!("{id}.dir"))).unwrap();
        std::fs::write(volumes.path().join(format!("{id}.qcow2")), b"disk").unwrap();
        for _ in 0..2 {
            take_in(volumes.path(), &disks).unwrap();
            assert_eq!(std::fs::read(disks.join(format!("{id}.qcow2"))).unwrap(), b"disk");
        }
        assert_eq!(std::fs::read_dir(volumes.path()).unwrap().count(), 2, "the directories stay");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_goes_from_one_record_to_another_is_needed_at_every_moment() {
        use store::{Memory, Schema, Tx};
        let schema =
            Schema::new().table::<Volume>().table::<Snapshot>().table::<Image>().table::<ImageStatus>();
        let store = Store::open(std::sync::Arc::new(Memory::new()), schema).await.unwrap();
        let (below, above) = (VolumeId::from_random([1; 16]), VolumeId::from_random([2; 16]));
        let meta = |id| {
            serde_json::json!({
                "id": id, "project": VolumeId::from_random([9; 16]), "name": "x",
                "created_at": jiff::Timestamp::UNIX_EPOCH, "updated_at": jiff::Timestamp::UNIX_EPOCH,
            })
        };
        let ground = serde_json::json!({"stretches": [{"volume": below, "floor": 0, "layer": 0}]});
        let volume: Volume = serde_json::from_value(serde_json::json!({
            "meta": meta(above), "size_gib": 1, "provisioning": "thin",
            "source": {"type": "copy", "id": {"volume": below, "ground": ground}},
        }))
        .unwrap();
        let snapshot: Snapshot = serde_json::from_value(serde_json::json!({
            "meta": meta(below), "volume": below, "layer": 0, "ground": ground, "size_gib": 1,
        }))
        .unwrap();
        let mut tx = Tx::new();
        tx.put(&snapshot);
        store.commit(tx).await.unwrap();
        let files = DiskFiles::new("/nowhere".into(), "/nowhere".into());
        let reader = store.clone();
        let reading = tokio::task::spawn_blocking(move || {
            while reader.mirror().revision() < store::Revision(2_000) {
                assert!(Needs::of(&reader, &files).has(below, 0));
            }
        });
        while store.mirror().revision() < store::Revision(2_000) {
            let mut tx = Tx::new();
            tx.put(&volume).remove::<Snapshot>(&below.to_string());
            store.commit(tx).await.unwrap();
            let mut tx = Tx::new();
            tx.put(&snapshot).remove::<Volume>(&above.to_string());
            store.commit(tx).await.unwrap();
        }
        reading.await.unwrap();
    }

    #[test]
    fn names_lead_back_to_layers() {
        let files = DiskFiles::new("/d".into(), "/i".into());
        let id = VolumeId::from_random([1; 16]);
        for (layer, format) in [(0, DiskFormat::Raw), (0, DiskFormat::Qcow2), (7, DiskFormat::Qcow2)] {
            let path = files.path(id, layer, format);
            assert_eq!(parse(path.file_name().unwrap().to_str().unwrap()), Some((id, layer)));
        }
        for name in ["x.qcow2", "tmp-1", &format!("{id}.new"), &format!("{id}.x.qcow2")] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
