//! Archives that a guest made, on their way to clients: read as those of strangers and written anew.
//!
//! Who gets such an archive unpacks it where his own files are, and trusts this cloud that nothing in it leads out of the
//! place. So what passes is what [`super::pack`] itself would have made: a walk through one tree, each thing in a directory
//! that came right before, nothing below or in the place of a link, links to files that lie in the tree, owners and
//! attributes that a container can have, and no device.

use super::{DEPTH_MAX, FilesError, io_at, pack::CAPABILITY, shown};
use crate::image::{
    tar::{Entry, Kind, PATH_BYTES_MAX, TarReader},
    tar_writer::TarWriter,
};
use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    io::{self, Read, Write},
};

/// Most entries of an archive: what is packed has no more.
const ENTRIES_MAX: u64 = 5_000_000;
/// Most symbolic links of an archive: they are remembered.
const LINKS_MAX: usize = 1_000_000;
/// Longest name of one part (NAME_MAX).
const NAME_BYTES_MAX: usize = 255;
/// Most bytes behind the end of an archive.
const REST_BYTES_MAX: u64 = 1 << 20;

/// What an archive may be.
#[derive(Debug, Clone, Default)]
pub(super) struct Rule {
    /// All of it lies under this name, which comes first; `None` for the files of a whole container.
    pub top: Option<Vec<u8>>,
    /// Ids that a container has.
    pub ids: u32,
    /// No time is later, in seconds since 1970.
    pub newest_s: Option<i64>,
}

/// Writes an archive anew, as far as it is what it may be.
///
/// # Errors
/// The entry that it may not have; a limit; the archive's or the output's own.
pub(super) fn sift(input: impl Read, output: impl Write, rule: &Rule) -> Result<(), FilesError> {
    let mut reader = TarReader::new(input);
    let mut writer = TarWriter::new(output);
    let mut walk = Walk::new(rule);
    let mut entries = 0;
    while let Some(mut entry) = reader.next_entry()? {
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(FilesError::Limit { what: "files", limit: ENTRIES_MAX });
        }
        walk.step(&entry).map_err(|why| refused(&entry, why))?;
        tidy(&mut entry, rule)?;
        let written = match entry.kind {
            Kind::File => writer.add_file(&entry, &mut reader),
            _ => writer.add(&entry),
        };
        written.map_err(io_at(format!("pass on {}", shown(&entry.path))))?;
    }
    let rest = io::copy(&mut reader.into_inner().take(REST_BYTES_MAX), &mut io::sink());
    if rest.map_err(io_at("read the archive's end"))? == REST_BYTES_MAX {
        return Err(FilesError::Limit { what: "bytes behind the archive", limit: REST_BYTES_MAX });
    }
    writer.finish().map_err(io_at("end the archive")).map(drop)
}

fn refused(entry: &Entry, why: &str) -> FilesError {
    FilesError::Entry { entry: super::work::readable(&shown(&entry.path)), why: why.into() }
}

/// Leaves what a container cannot have of an entry away.
fn tidy(entry: &mut Entry, rule: &Rule) -> Result<(), FilesError> {
    if entry.uid >= u64::from(rule.ids) || entry.gid >= u64::from(rule.ids) {
        return Err(refused(entry, "belongs to nobody whom a container can have"));
    }
    entry.mode &= 0o7777;
    entry.mtime = (rule.newest_s.map_or(entry.mtime.0, |newest| newest.min(entry.mtime.0)), 0);
    entry.xattrs.retain(|(name, _)| name == CAPABILITY || name.starts_with(b"user."));
    if entry.kind != Kind::File {
        entry.size_bytes = 0;
    }
    if !matches!(entry.kind, Kind::Symlink | Kind::HardLink) {
        entry.link = vec![];
    }
    Ok(())
}

/// A walk through one tree, as its entries tell it.
struct Walk {
    top: Option<Vec<u8>>,
    /// The top has come.
    has_begun: bool,
    /// Directories that the walk is in, each below the one before it.
    open: Vec<Vec<u8>>,
    /// Symbolic links, by hashes of their paths.
    links: HashSet<u64>,
    hashes: RandomState,
}

impl Walk {
    fn new(rule: &Rule) -> Self {
        Self {
            top: rule.top.clone(),
            has_begun: rule.top.is_none(),
            open: if rule.top.is_none() { vec![vec![]] } else { vec![] },
            links: HashSet::new(),
            hashes: RandomState::new(),
        }
    }

    /// Takes the next step.
    fn step(&mut self, entry: &Entry) -> Result<(), &'static str> {
        let path = trimmed(&entry.path);
        if path.len() > PATH_BYTES_MAX || entry.link.len() > PATH_BYTES_MAX || entry.link.contains(&0) {
            return Err("has a name that is too long or none");
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            if self.top.as_deref() != Some(path) {
                return Err("is not what was asked for");
            }
        } else {
            let (parent, name) = split(path);
            if !is_plain(name) {
                return Err("has a name that is none");
            }
            while self.open.last().is_some_and(|open| open != parent) {
                self.open.pop();
            }
            if self.open.is_empty() {
                return Err("lies in no directory of the archive");
            }
        }
        if self.links.contains(&self.hash(path)) {
            return Err("takes the place of a link");
        }
        match entry.kind {
            Kind::Directory if self.open.len() > DEPTH_MAX => return Err("lies too deep"),
            Kind::Directory => self.open.push(path.to_vec()),
            Kind::Symlink if self.links.len() >= LINKS_MAX => return Err("is a link too many"),
            Kind::Symlink => {
                let hash = self.hash(path);
                self.links.insert(hash);
            }
            Kind::HardLink => self.check_target(&entry.link)?,
            Kind::File | Kind::Fifo => {}
            Kind::CharDevice | Kind::BlockDevice => return Err("is a device"),
        }
        Ok(())
    }

    /// A hard link leads to something in the tree, on a way without links.
    fn check_target(&self, target: &[u8]) -> Result<(), &'static str> {
        const OUT: &str = "is a link to what is not in the archive";
        let below = match &self.top {
            None => target,
            Some(top) if target == top => return Ok(()),
            Some(top) if top == b"/" => target.strip_prefix(b"/").ok_or(OUT)?,
            Some(top) => {
                let below = target.strip_prefix(top.as_slice()).and_then(|rest| rest.strip_prefix(b"/"));
                below.ok_or(OUT)?
            }
        };
        if !below.split(|byte| *byte == b'/').all(is_plain) {
            return Err(OUT);
        }
        let begins = target.len() - below.len();
        let ends = below.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| begins + at);
        let mut ways = ends.chain([target.len()]).map(|end| &target[..end]);
        if ways.any(|way| self.links.contains(&self.hash(way))) { Err(OUT) } else { Ok(()) }
    }

    fn hash(&self, path: &[u8]) -> u64 {
        self.hashes.hash_one(path)
    }
}

/// A name without the slash that directories have at their end.
fn trimmed(path: &[u8]) -> &[u8] {
    match path {
        b"/" => path,
        path => path.strip_suffix(b"/").unwrap_or(path),
    }
}

/// The directory that a path lies in, and its name there.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        None => (b"", path),
        Some(0) => (b"/", &path[1..]),
        Some(at) => (&path[..at], &path[at + 1..]),
    }
}

fn is_plain(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && name.len() <= NAME_BYTES_MAX && !name.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            path: path.into(),
            link: vec![],
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size_bytes: 0,
            mtime: (5, 0),
            xattrs: vec![],
        }
    }

    fn link(path: &str, kind: Kind, to: &str) -> Entry {
        Entry { link: to.into(), ..entry(path, kind) }
    }

    fn archive(entries: &[Entry]) -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new());
        for entry in entries {
            let content = vec![b'x'; entry.size_bytes as usize];
            writer.add_file(entry, &mut content.as_slice()).unwrap();
        }
        writer.finish().unwrap()
    }

    fn rule(top: Option<&str>) -> Rule {
        Rule { top: top.map(|top| top.as_bytes().to_vec()), ids: 65_536, newest_s: None }
    }

    fn sifted(entries: &[Entry], rule: &Rule) -> Result<Vec<Entry>, FilesError> {
        let mut output = Vec::new();
        sift(archive(entries).as_slice(), &mut output, rule)?;
        let mut reader = TarReader::new(output.as_slice());
        let mut all = vec![];
        while let Some(entry) = reader.next_entry()? {
            all.push(entry);
        }
        Ok(all)
    }

    #[test]
    fn what_is_packed_passes_as_it_is() {
        let file = Entry { size_bytes: 1000, ..entry("etc/passwd", Kind::File) };
        let whole = [
            entry("etc/", Kind::Directory),
            file.clone(),
            entry("etc/empty/", Kind::Directory),
            link("etc/same", Kind::HardLink, "etc/passwd"),
            entry("etc/.wh.gone", Kind::File),
            link("var", Kind::Symlink, "/../../etc"),
            entry("pipe", Kind::Fifo),
        ];
        let passed = sifted(&whole, &rule(None)).unwrap();
        let names = |all: &[Entry]| all.iter().map(|it| it.path.clone()).collect::<Vec<_>>();
        assert_eq!(names(&passed), names(&whole));
        assert_eq!((passed[1].size_bytes, passed[3].link.as_slice()), (1000, &b"etc/passwd"[..]));
        for top in ["etc", "/", "."] {
            let dir = if top == "/" { "/".to_string() } else { format!("{top}/") };
            let all = [
                entry(&dir, Kind::Directory),
                entry(&format!("{dir}a/"), Kind::Directory),
                entry(&format!("{dir}a/b"), Kind::File),
                link(&format!("{dir}c"), Kind::HardLink, &format!("{dir}a/b")),
            ];
            assert_eq!(names(&sifted(&all, &rule(Some(top))).unwrap()), names(&all));
        }
        // A file alone, and a link alone.
        assert!(sifted(&[entry("passwd", Kind::File)], &rule(Some("passwd"))).is_ok());
        assert!(sifted(&[link("l", Kind::Symlink, "/etc")], &rule(Some("l"))).is_ok());
    }

    #[test]
    fn nothing_leads_out_of_the_tree() {
        let dir = || entry("d/", Kind::Directory);
        let hostile: Vec<Vec<Entry>> = vec![
            vec![entry("/etc/passwd", Kind::File)],
            vec![entry("../x", Kind::File)],
            vec![entry("d/../x", Kind::File)],
            vec![dir(), entry("d/../x", Kind::File)],
            vec![dir(), entry("d/..", Kind::File)],
            vec![dir(), entry("d//x", Kind::File)],
            vec![entry("", Kind::File)],
            vec![entry("not/there", Kind::File)],
            vec![dir(), link("d/l", Kind::Symlink, "/etc"), entry("d/l/passwd", Kind::File)],
            vec![dir(), link("d/l", Kind::Symlink, "/etc"), entry("d/l/", Kind::Directory)],
            vec![dir(), link("d/l", Kind::Symlink, "/etc/passwd"), entry("d/l", Kind::File)],
            vec![dir(), link("d/l", Kind::Symlink, "/etc"), link("d/h", Kind::HardLink, "d/l/passwd")],
            vec![dir(), link("d/l", Kind::Symlink, "/etc/passwd"), link("d/h", Kind::HardLink, "d/l")],
            vec![dir(), link("d/h", Kind::HardLink, "/etc/passwd")],
            vec![dir(), link("d/h", Kind::HardLink, "d/../../etc/passwd")],
            // Back to where the walk was before: the directory may be another thing by now.
            vec![dir(), entry("e/", Kind::Directory), entry("d/x", Kind::File)],
            vec![entry("null", Kind::CharDevice)],
            vec![entry("sda", Kind::BlockDevice)],
            vec![Entry { uid: 65_536, ..entry("x", Kind::File) }],
            vec![entry(&"n".repeat(300), Kind::File)],
        ];
        for entries in &hostile {
            let error = sifted(entries, &rule(None)).expect_err(&format!("{entries:?}"));
            assert!(matches!(error, FilesError::Entry { .. } | FilesError::Archive(_)), "{error:?}");
        }
        for entries in [
            vec![entry("other", Kind::File)],
            vec![entry("d/", Kind::Directory), entry("other", Kind::File)],
            vec![entry("d/", Kind::Directory), link("d/h", Kind::HardLink, "e/f")],
            vec![entry("d", Kind::File), entry("d/x", Kind::File)],
        ] {
            assert!(sifted(&entries, &rule(Some("d"))).is_err(), "{entries:?}");
        }
    }

    #[test]
    fn what_a_container_cannot_have_is_left_away() {
        let with = |name: &str| (name.as_bytes().to_vec(), b"v".to_vec());
        let odd = Entry {
            mode: 0o104_755,
            xattrs: vec![with("user.a"), with("trusted.overlay.opaque"), with("security.selinux")],
            ..entry("x", Kind::File)
        };
        let passed = sifted(&[odd], &Rule { newest_s: Some(3), ..rule(None) }).unwrap();
        assert_eq!((passed[0].mode, passed[0].mtime.0), (0o4755, 3));
        assert_eq!(passed[0].xattrs, [with("user.a")]);
    }

    #[test]
    fn an_archive_that_is_cut_or_endless_is_none() {
        let whole = archive(&[Entry { size_bytes: 4000, ..entry("x", Kind::File) }]);
        assert!(sift(&whole[..2000], io::sink(), &rule(None)).is_err());
        let endless = whole.as_slice().chain(io::repeat(0));
        assert!(matches!(sift(endless, io::sink(), &rule(None)), Err(FilesError::Limit { .. })));
    }
}
