//! Images as the door gives them out: their config, and what their layers hold.

use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    File {
        mode: u32,
        owner: (u64, u64),
        content: Vec<u8>,
    },
    Link(String),
    Directory {
        mode: u32,
        owner: (u64, u64),
    },
    /// Something that lay there before is taken away.
    Gone,
    Other,
}

/// An image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its config document.
    pub document: Value,
    /// Archives of its layers, lowest first, by the digests that the config tells.
    layers: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// Reads what `GET /images/NAME/get` gives.
    pub fn read(archive: &[u8]) -> Self {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(Cursor::new(archive)).entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").to_string_lossy().trim_start_matches("./").to_string();
            let mut content = vec![];
            entry.read_to_end(&mut content).expect("its content");
            files.insert(path, content);
        }
        let file = |name: &str| files.get(name).unwrap_or_else(|| panic!("{name}: {:?}", files.keys()));
        let json = |name: &str| serde_json::from_slice::<Value>(file(name)).expect(name);
        let manifest = &json("manifest.json")[0];
        let document = json(manifest["Config"].as_str().expect("a config"));
        let ids = document["rootfs"]["diff_ids"].as_array().expect("layers").iter();
        let names = manifest["Layers"].as_array().expect("layers").iter();
        let layers = ids.zip(names).map(|(id, name)| {
            let id = id.as_str().expect("a digest").to_string();
            (id, file(name.as_str().expect("a name")).clone())
        });
        Self { layers: layers.collect(), document }
    }

    /// The config that containers run with; no field that is null or empty.
    pub fn config(&self) -> BTreeMap<String, Value> {
        let fields = self.document["config"].as_object().cloned().unwrap_or_default();
        let is_set = |value: &Value| match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            _ => true,
        };
        fields.into_iter().filter(|(_, value)| is_set(value)).collect()
    }

    /// Number of its layers above those of a base.
    pub fn layers_above(&self, base: Option<&Self>) -> usize {
        self.layers.len() - base.map_or(0, |base| base.layers.len())
    }

    /// What its layers above those of a base hold together.
    pub fn changes(&self, base: Option<&Self>) -> BTreeMap<String, Thing> {
        let below = base.map_or(0, |base| base.layers.len());
        let same = base.is_none_or(|base| base.layers.iter().zip(&self.layers).all(|(a, b)| a.0 == b.0));
        assert!(same, "it stands on its base");
        let mut all = BTreeMap::new();
        for (_, layer) in &self.layers[below..] {
            add(layer, &mut all);
        }
        all
    }

    /// All that it holds.
    pub fn files(&self) -> BTreeMap<String, Thing> {
        self.changes(None)
    }
}

fn plain(bytes: &[u8]) -> Box<dyn Read + '_> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::read::GzDecoder::new(bytes))
    } else {
        Box::new(bytes)
    }
}

/// Lays a layer upon what is there (OCI image specification, layer.md, "Whiteouts").
fn add(layer: &[u8], all: &mut BTreeMap<String, Thing>) {
    for entry in tar::Archive::new(plain(layer)).entries().expect("a layer") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_string_lossy().into_owned();
        let path = format!("/{}", path.trim_start_matches("./").trim_matches('/'));
        let (above, name) = path.rsplit_once('/').expect("a slash");
        if name == ".wh..wh..opq" {
            all.retain(|path, _| !path.starts_with(&format!("{above}/")));
            continue;
        }
        if let Some(name) = name.strip_prefix(".wh.") {
            let gone = format!("{above}/{name}");
            all.retain(|path, _| *path != gone && !path.starts_with(&format!("{gone}/")));
            all.insert(gone, Thing::Gone);
            continue;
        }
        let header = entry.header();
        let mode = header.mode().expect("a mode") & 0o7777;
        let owner = (header.uid().expect("an owner"), header.gid().expect("a group"));
        let link = || entry.link_name().ok().flatten().map(|name| name.to_string_lossy().into_owned());
        let thing = match header.entry_type() {
            tar::EntryType::Directory => Thing::Directory { mode, owner },
            tar::EntryType::Symlink => Thing::Link(link().unwrap_or_default()),
            tar::EntryType::Link => {
                let other =
                    format!("/{}", link().unwrap_or_default().trim_start_matches("./").trim_matches('/'));
                all.get(&other).cloned().unwrap_or(Thing::Other)
            }
            tar::EntryType::Regular => {
                let mut content = vec![];
                entry.read_to_end(&mut content).expect("its content");
                Thing::File { mode, owner, content }
            }
            _ => Thing::Other,
        };
        all.insert(path, thing);
    }
}
