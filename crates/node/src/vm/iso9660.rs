//! Writes a small ISO 9660 image (ECMA-119, interchange level 1) with Joliet names (Microsoft's supplement, level 3).
//!
//! Guests' kernels and Windows read the Joliet names, which keep case and length; the level 1 names are there because the
//! standard demands them. Equal contents are stored once. Pure: the same files give the same bytes, with no dates.
//!
//! ```text
//!  sector 0-15 unused │ 16 primary │ 17 Joliet │ 18 end │ path tables (2 × little, big endian) │ directories │ contents
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};

/// Bytes of a sector.
const SECTOR: usize = 2048;
const PRIMARY_SECTOR: usize = 16;
/// Deepest directory that the standard allows, the root included.
const DEPTH_MAX: usize = 8;
/// Longest Joliet name in characters.
const NAME_CHARS_MAX: usize = 64;
/// Longest volume label: 16 characters of Joliet.
const LABEL_CHARS_MAX: usize = 16;
/// Directory records come in a byte of length: 33 bytes and the name.
const RECORD_BYTES: usize = 33;

/// Why there is no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsoError {
    /// The label does not fit.
    #[error("the label {0:?} does not fit: at most 16 ASCII characters")]
    Label(String),
    /// A path cannot be stored.
    #[error(
        "the path {0:?} does not fit: parts of 1 to 64 characters, at most 7 deep, no part both file and directory"
    )]
    Path(String),
}

/// A directory as given: names to what they are.
#[derive(Default)]
struct Folder<'a> {
    folders: BTreeMap<&'a str, Folder<'a>>,
    files: BTreeMap<&'a str, &'a [u8]>,
}

/// A directory with its names encoded; directories stand level by level, as the path table wants.
struct Directory {
    identifier: Vec<u8>,
    parent: usize,
    entries: Vec<Entry>,
}

struct Entry {
    identifier: Vec<u8>,
    target: Target,
}

enum Target {
    Directory(usize),
    File { content: usize },
}

#[derive(Clone, Copy, PartialEq)]
enum Names {
    Level1,
    Joliet,
}

/// Where everything stands.
struct Layout {
    next_sector: usize,
}

impl Layout {
    fn take(&mut self, bytes: usize) -> usize {
        let sector = self.next_sector;
        self.next_sector += bytes.div_ceil(SECTOR);
        sector
    }
}

/// One of the two trees of names, placed.
struct Tree {
    names: Names,
    directories: Vec<Directory>,
    sectors: Vec<usize>,
    path_table_bytes: usize,
    path_table_little: usize,
    path_table_big: usize,
}

/// Makes an image of `files` (paths with slashes from the root) with the volume's `label`.
pub fn image(label: &str, files: &[(String, Vec<u8>)]) -> Result<Vec<u8>, IsoError> {
    if !label.is_ascii() || label.len() > LABEL_CHARS_MAX {
        return Err(IsoError::Label(label.to_owned()));
    }
    let root = folders(files)?;
    let mut contents = Contents::default();
    let mut layout = Layout { next_sector: PRIMARY_SECTOR + 3 };
    let primary = Tree::place(&root, Names::Level1, &mut contents, &mut layout);
    let joliet = Tree::place(&root, Names::Joliet, &mut contents, &mut layout);
    // An empty file has no extent; sector 0 says so.
    let places: Vec<usize> =
        contents.list.iter().map(|body| if body.is_empty() { 0 } else { layout.take(body.len()) }).collect();
    let mut image = vec![0; layout.next_sector * SECTOR];
    for (number, tree) in [&primary, &joliet].into_iter().enumerate() {
        let descriptor = tree.descriptor(label, layout.next_sector);
        put(&mut image, PRIMARY_SECTOR + number, &descriptor);
        put(&mut image, tree.path_table_little, &tree.path_table(u32::to_le_bytes, u16::to_le_bytes));
        put(&mut image, tree.path_table_big, &tree.path_table(u32::to_be_bytes, u16::to_be_bytes));
        for (index, sector) in tree.sectors.iter().enumerate() {
            put(&mut image, *sector, &tree.directory(index, Some((&places, &contents.list))));
        }
    }
    put(&mut image, PRIMARY_SECTOR + 2, b"\xffCD001\x01");
    for (sector, body) in places.iter().zip(&contents.list) {
        put(&mut image, *sector, body);
    }
    Ok(image)
}

fn put(image: &mut [u8], sector: usize, bytes: &[u8]) {
    let start = sector * SECTOR;
    image[start..start + bytes.len()].copy_from_slice(bytes);
}

/// Contents, each once.
#[derive(Default)]
struct Contents<'a> {
    list: Vec<&'a [u8]>,
    places: HashMap<&'a [u8], usize>,
}

impl<'a> Contents<'a> {
    fn add(&mut self, body: &'a [u8]) -> usize {
        *self.places.entry(body).or_insert_with(|| {
            self.list.push(body);
            self.list.len() - 1
        })
    }
}

fn folders(files: &[(String, Vec<u8>)]) -> Result<Folder<'_>, IsoError> {
    let mut root = Folder::default();
    for (path, body) in files {
        let bad = || IsoError::Path(path.clone());
        let parts: Vec<&str> = path.split('/').collect();
        let good = |part: &&str| {
            (1..=NAME_CHARS_MAX - 2).contains(&part.chars().count()) && *part != "." && *part != ".."
        };
        let (name, above) = parts.split_last().ok_or_else(bad)?;
        if !parts.iter().all(good) || parts.len() > DEPTH_MAX - 1 {
            return Err(bad());
        }
        let mut folder = &mut root;
        for part in above {
            if folder.files.contains_key(part) {
                return Err(bad());
            }
            folder = folder.folders.entry(part).or_default();
        }
        if folder.folders.contains_key(name) || folder.files.insert(name, body).is_some() {
            return Err(bad());
        }
    }
    Ok(root)
}

impl Tree {
    fn place<'a>(root: &Folder<'a>, names: Names, contents: &mut Contents<'a>, layout: &mut Layout) -> Tree {
        let directories = flatten(root, names, contents);
        let mut tree = Tree {
            names,
            directories,
            sectors: Vec::new(),
            path_table_bytes: 0,
            path_table_little: 0,
            path_table_big: 0,
        };
        let padded = |length: usize| 8 + length + length % 2;
        tree.path_table_bytes =
            tree.directories.iter().map(|directory| padded(directory.identifier.len())).sum();
        tree.path_table_little = layout.take(tree.path_table_bytes);
        tree.path_table_big = layout.take(tree.path_table_bytes);
        let sizes: Vec<usize> =
            (0..tree.directories.len()).map(|index| tree.directory(index, None).len()).collect();
        tree.sectors = sizes.into_iter().map(|bytes| layout.take(bytes)).collect();
        tree
    }

    /// A volume descriptor, section 8.4 of ECMA-119.
    fn descriptor(&self, label: &str, sectors: usize) -> Vec<u8> {
        let mut bytes = vec![0; SECTOR];
        let spaces = match self.names {
            Names::Level1 => vec![b' '; 128],
            Names::Joliet => [0, b' '].repeat(64),
        };
        bytes[0] = if self.names == Names::Joliet { 2 } else { 1 };
        bytes[1..7].copy_from_slice(b"CD001\x01");
        bytes[8..72].copy_from_slice(&spaces[..64]);
        let label = encode_text(label, self.names);
        bytes[40..40 + label.len()].copy_from_slice(&label);
        bytes[80..88].copy_from_slice(&both_u32(sectors));
        if self.names == Names::Joliet {
            bytes[88..91].copy_from_slice(b"%/E");
        }
        bytes[120..124].copy_from_slice(&both_u16(1));
        bytes[124..128].copy_from_slice(&both_u16(1));
        bytes[128..132].copy_from_slice(&both_u16(SECTOR));
        bytes[132..140].copy_from_slice(&both_u32(self.path_table_bytes));
        bytes[140..144].copy_from_slice(&(self.path_table_little as u32).to_le_bytes());
        bytes[148..152].copy_from_slice(&(self.path_table_big as u32).to_be_bytes());
        let root = record(&[0], self.sectors[0], self.directory(0, None).len(), true);
        bytes[156..190].copy_from_slice(&root);
        // Names of the set, the publisher, the preparer, the application and three files.
        for start in [190, 318, 446, 574] {
            bytes[start..start + 128].copy_from_slice(&spaces);
        }
        bytes[702..813].copy_from_slice(&spaces[..111]);
        // Four dates that are not given: sixteen digits 0 and an offset.
        for start in [813, 830, 847, 864] {
            bytes[start..start + 16].fill(b'0');
        }
        bytes[881] = 1;
        bytes
    }

    fn path_table(&self, long: fn(u32) -> [u8; 4], short: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.path_table_bytes);
        for (directory, sector) in self.directories.iter().zip(&self.sectors) {
            bytes.extend([directory.identifier.len() as u8, 0]);
            bytes.extend(long(*sector as u32));
            bytes.extend(short(directory.parent as u16 + 1));
            bytes.extend(&directory.identifier);
            bytes.resize(bytes.len().next_multiple_of(2), 0);
        }
        bytes
    }

    /// A directory's records. Without places only its length is right.
    fn directory(&self, index: usize, places: Option<(&[usize], &[&[u8]])>) -> Vec<u8> {
        let extent = |index: usize| match places {
            Some(_) => (self.sectors[index], self.directory(index, None).len()),
            None => (0, 0),
        };
        let directory = &self.directories[index];
        let mut records = Vec::new();
        for (name, target) in [(0, index), (1, directory.parent)] {
            let (sector, length) = extent(target);
            records.push(record(&[name], sector, length, true));
        }
        for entry in &directory.entries {
            let ((sector, length), is_directory) = match entry.target {
                Target::Directory(index) => (extent(index), true),
                Target::File { content } => {
                    (places.map_or((0, 0), |(sectors, list)| (sectors[content], list[content].len())), false)
                }
            };
            records.push(record(&entry.identifier, sector, length, is_directory));
        }
        let mut bytes = Vec::new();
        for record in records {
            // No record crosses into the next sector.
            if bytes.len() % SECTOR + record.len() > SECTOR {
                bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
            }
            bytes.extend(record);
        }
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        bytes
    }
}

/// Lists directories level by level, each level in the order of its parents and then of its names.
fn flatten<'a>(root: &Folder<'a>, names: Names, contents: &mut Contents<'a>) -> Vec<Directory> {
    let mut directories = vec![Directory { identifier: vec![0], parent: 0, entries: Vec::new() }];
    let mut queue: Vec<&Folder<'a>> = vec![root];
    let mut index = 0;
    while index < queue.len() {
        let folder = queue[index];
        let mut taken = HashSet::new();
        let mut entries: Vec<(Vec<u8>, Result<&Folder<'a>, usize>)> = Vec::new();
        for (name, below) in &folder.folders {
            entries.push((encode_name(name, names, false, &mut taken), Ok(below)));
        }
        for (name, body) in &folder.files {
            entries.push((encode_name(name, names, true, &mut taken), Err(contents.add(body))));
        }
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        for (identifier, entry) in entries {
            let target = match entry {
                Ok(below) => {
                    queue.push(below);
                    directories.push(Directory {
                        identifier: identifier.clone(),
                        parent: index,
                        entries: Vec::new(),
                    });
                    Target::Directory(queue.len() - 1)
                }
                Err(content) => Target::File { content },
            };
            directories[index].entries.push(Entry { identifier, target });
        }
        index += 1;
    }
    directories
}

fn encode_text(text: &str, names: Names) -> Vec<u8> {
    match names {
        Names::Level1 => text.as_bytes().to_vec(),
        Names::Joliet => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    }
}

fn encode_name(name: &str, names: Names, is_file: bool, taken: &mut HashSet<String>) -> Vec<u8> {
    let version = if is_file { ";1" } else { "" };
    if names == Names::Joliet {
        return encode_text(&format!("{name}{version}"), names);
    }
    let plain = |text: &str, length: usize| -> String {
        let letters =
            text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
        letters.take(length).collect()
    };
    let (stem, extension) = if is_file { name.rsplit_once('.').unwrap_or((name, "")) } else { (name, "") };
    let (stem, extension) = (plain(stem, 8), plain(extension, 3));
    let dot = if is_file { "." } else { "" };
    let mut candidate = format!("{stem}{dot}{extension}");
    // Cut names may meet: the later one ends in a number.
    for number in 0.. {
        if taken.insert(candidate.clone()) {
            break;
        }
        let digits = number.to_string();
        let kept: String = stem.chars().take(8 - digits.len()).collect();
        candidate = format!("{kept}{digits}{dot}{extension}");
    }
    format!("{candidate}{version}").into_bytes()
}

/// A directory record, section 9.1.
fn record(identifier: &[u8], sector: usize, length: usize, is_directory: bool) -> Vec<u8> {
    let mut bytes = vec![0; RECORD_BYTES];
    bytes[2..10].copy_from_slice(&both_u32(sector));
    bytes[10..18].copy_from_slice(&both_u32(length));
    bytes[25] = if is_directory { 2 } else { 0 };
    bytes[28..32].copy_from_slice(&both_u16(1));
    bytes[32] = identifier.len() as u8;
    bytes.extend(identifier);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes[0] = bytes.len() as u8;
    bytes
}

/// A number in both byte orders, little endian first.
fn both_u32(number: usize) -> [u8; 8] {
    let number = number as u32;
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn both_u16(number: usize) -> [u8; 4] {
    let number = number as u16;
    let [a, b] = number.to_le_bytes();
    [a, b, b, a]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn sample() -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<(String, Vec<u8>)> = vec![
            ("openstack/latest/meta_data.json".into(), b"{\"uuid\": 1}".to_vec()),
            ("openstack/latest/vendor_data.json".into(), b"{}".to_vec()),
            ("openstack/latest/vendor_data2.json".into(), b"{}".to_vec()),
            ("openstack/2012-08-10/meta_data.json".into(), b"{\"uuid\": 1}".to_vec()),
            ("openstack/latest/user_data".into(), vec![7; 70_000]),
            ("ec2/latest/empty".into(), vec![]),
        ];
        // More records than one sector holds.
        files.extend((0..60).map(|number| (format!("many/a-rather-long-name-{number}"), vec![number])));
        files
    }

    fn isoinfo(image: &std::path::Path, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("isoinfo").arg("-i").arg(image).args(arguments).output();
        let output = output.expect("isoinfo (of the package genisoimage) is needed by this test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    #[test]
    fn another_reader_finds_label_names_and_contents() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("image.iso");
        std::fs::write(&path, image("config-2", &sample()).unwrap()).unwrap();
        let info = String::from_utf8(isoinfo(&path, &["-d"])).unwrap();
        assert!(info.contains("Volume id: config-2"), "{info}");
        assert!(info.contains("Joliet with UCS level 3"), "{info}");
        let list = String::from_utf8(isoinfo(&path, &["-J", "-f"])).unwrap();
        for (name, body) in sample() {
            let listed = list.lines().find(|line| line.trim_end_matches(";1") == format!("/{name}"));
            let listed = listed.unwrap_or_else(|| panic!("{name} is not in {list}"));
            assert_eq!(isoinfo(&path, &["-J", "-x", listed]), body, "{name}");
        }
        let plain = String::from_utf8(isoinfo(&path, &["-f"])).unwrap();
        assert!(plain.contains("/OPENSTAC/LATEST/VENDOR_D.JSO;1"), "{plain}");
        assert!(plain.contains("/OPENSTAC/LATEST/VENDOR_0.JSO;1"), "{plain}");
    }

    #[test]
    fn equal_contents_are_stored_once() {
        let body = vec![1; 1 << 20];
        let files: Vec<_> = (0..3).map(|number| (format!("v{number}/file"), body.clone())).collect();
        assert!(image("x", &files).unwrap().len() < 2 << 20);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let file = |path: &str| vec![(path.to_owned(), vec![1])];
        for path in ["", "a//b", "a/../b", "/a", "1/2/3/4/5/6/7/8", &"x".repeat(63)] {
            assert!(matches!(image("x", &file(path)), Err(IsoError::Path(_))), "{path}");
        }
        assert!(matches!(image("a label that is too long", &file("a")), Err(IsoError::Label(_))));
        let clash = [file("a"), file("a/b")].concat();
        assert!(image("x", &clash).is_err());
    }
}
