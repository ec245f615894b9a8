//! Cases of the build suite, as they are written down.
//!
//! ```text
//!   === a name                          a case begins
//!   --- PATH [MODE] [UID:GID] [bare]    a file of the context: the lines below, without the last end if it is bare
//!   --- PATH [MODE] [UID:GID] json      the same, as one string of JSON
//!   --- PATH/ [MODE] [UID:GID]          a directory
//!   --- PATH -> TARGET                  a symbolic link
//!   --- PATH => TARGET                  another name of a file
//!   --- PATH = FORM                     an archive (tar, gzip, zstd, xz, bzip2) of what the lines below say:
//!                                       PATH MODE UID:GID "text", PATH/ MODE UID:GID, PATH -> TARGET, PATH => TARGET
//!   --- without PATH                    it is no longer there
//!   --- build [NAME=VALUE …]            builds it; arg.NAME, label.NAME, or a parameter of the call. The lines below tell
//!                                       what must come of it
//! ```
//!
//! A `%20` in a path is a space. A case may build several times; files stay from one to the next. What must come of a build:
//!
//! ```text
//!   says TEXT, silent TEXT              it tells so, or does not
//!   cached NUMBER                       so many steps come from an earlier build
//!   error TEXT                          it fails with these words
//!   code NUMBER                         with this code of a program
//!   base NAME                           what follows is the difference to this image; scratch; busybox unless said
//!   config FIELD JSON                   a field of the config that is another than the base's; null where it is gone
//!   env "NAME=VALUE"                    a variable behind those of the base
//!   file PATH MODE UID:GID "text"       a file that it has and its base has not, or of other content
//!   link PATH TARGET, gone PATH         the same with a link, and with what is no longer there
//!   dir PATH MODE UID:GID               a directory
//!   history TEXT, author TEXT, created TIME, layers NUMBER
//!   same, other                         the image of the build before, or another one
//!   runs "text"                         what it says when it is run as it is
//! ```
//!
//! Fields of the config, files, links and what is gone are told completely, or the case fails; `more files` leaves that open.

use serde_json::Value;

/// What a file of a context is.
#[derive(Debug, Clone)]
pub enum What {
    /// A file with these bytes.
    File(Vec<u8>),
    Directory,
    Symlink(String),
    Hardlink(String),
    /// An archive: its form, and its entries.
    Archive(String, Vec<Entry>),
}

/// An entry of an archive, a context being one.
#[derive(Debug, Clone)]
pub struct Entry {
    pub path: String,
    pub mode: u32,
    pub owner: (u64, u64),
    pub what: What,
}

/// Something that must come of a build.
#[derive(Debug, Clone)]
pub enum Wanted {
    Says(String),
    Silent(String),
    Cached(usize),
    Error(String),
    Code(i64),
    Base(String),
    Config(String, Value),
    Env(String),
    File { path: String, mode: u32, owner: (u64, u64), text: String },
    Link { path: String, target: String },
    Directory { path: String, mode: u32, owner: (u64, u64) },
    Gone(String),
    MoreFiles,
    History(String),
    Author(String),
    Created(String),
    Layers(usize),
    Same,
    Other,
    Runs(String),
}

/// What is done in a case.
#[derive(Debug, Clone)]
pub enum Deed {
    Put(Entry),
    Remove(String),
    Build { asked: Vec<(String, String)>, wanted: Vec<Wanted> },
}

/// A case.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub deeds: Vec<Deed>,
}

/// Reads a file of cases.
pub fn read(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = vec![];
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("=== ") {
            cases.push(Case { name: name.trim().into(), deeds: vec![] });
            continue;
        }
        let Some(head) = line.strip_prefix("--- ") else {
            assert!(line.trim().is_empty() || line.starts_with('#'), "no line of a case: {line}");
            continue;
        };
        let mut below = vec![];
        while let Some(line) = lines.next_if(|line| !line.starts_with("=== ") && !line.starts_with("--- ")) {
            below.push(line);
        }
        while below.last().is_some_and(|line| line.is_empty()) {
            below.pop();
        }
        let case = cases.last_mut().expect("a case");
        let deed = deed(head, &below).unwrap_or_else(|why| panic!("{}: {head}: {why}", case.name));
        case.deeds.push(deed);
    }
    cases
}

fn deed(head: &str, below: &[&str]) -> Result<Deed, String> {
    let words: Vec<&str> = head.split_whitespace().collect();
    match words[0] {
        "without" => Ok(Deed::Remove(words.get(1).ok_or("a path")?.to_string())),
        "build" => {
            let asked = words[1..].iter().map(|word| word.split_once('=').ok_or("NAME=VALUE"));
            let asked = asked.map(|pair| pair.map(|(name, value)| (name.to_string(), spaced(value))));
            let wanted = below.iter().filter(|line| !line.trim().is_empty()).map(|line| wanted(line));
            Ok(Deed::Build {
                asked: asked.collect::<Result<_, _>>()?,
                wanted: wanted.collect::<Result<_, _>>()?,
            })
        }
        _ => match words.as_slice() {
            [path, "=", form] => {
                let entries = below.iter().map(|line| archived(line)).collect::<Result<_, _>>()?;
                Ok(Deed::Put(entry(path, 0o644, (0, 0), What::Archive(form.to_string(), entries))))
            }
            _ => file(&words, below).map(Deed::Put),
        },
    }
}

fn entry(path: &str, mode: u32, owner: (u64, u64), what: What) -> Entry {
    Entry { path: spaced(path), mode, owner, what }
}

fn file(words: &[&str], below: &[&str]) -> Result<Entry, String> {
    if let Some(linked) = link(words) {
        return Ok(linked);
    }
    let (mut mode, mut owner, mut is_bare, mut is_json) = (None, (0, 0), false, false);
    for word in &words[1..] {
        match *word {
            "bare" => is_bare = true,
            "json" => is_json = true,
            word if word.contains(':') => owner = ids(word)?,
            word => mode = Some(octal(word)?),
        }
    }
    if let Some(path) = words[0].strip_suffix('/') {
        return Ok(entry(path, mode.unwrap_or(0o755), owner, What::Directory));
    }
    let content = if is_json {
        string(&below.concat())?
    } else {
        let ended = if below.is_empty() || is_bare { "" } else { "\n" };
        format!("{}{ended}", below.join("\n"))
    };
    Ok(entry(words[0], mode.unwrap_or(0o644), owner, What::File(content.into_bytes())))
}

fn link(words: &[&str]) -> Option<Entry> {
    match words {
        [path, "->", target] => Some(entry(path, 0o777, (0, 0), What::Symlink(target.to_string()))),
        [path, "=>", target] => Some(entry(path, 0o644, (0, 0), What::Hardlink(target.to_string()))),
        _ => None,
    }
}

/// An entry of an archive.
fn archived(line: &str) -> Result<Entry, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if let Some(linked) = link(&words) {
        return Ok(linked);
    }
    let [path, mode, owner, ..] = words.as_slice() else { return Err(format!("PATH MODE UID:GID: {line}")) };
    let (mode, owner) = (octal(mode)?, ids(owner)?);
    if let Some(path) = path.strip_suffix('/') {
        return Ok(entry(path, mode, owner, What::Directory));
    }
    Ok(entry(path, mode, owner, What::File(string(rest(line, 3))?.into_bytes())))
}

fn wanted(line: &str) -> Result<Wanted, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let all = || rest(line, 1).to_string();
    let word = |at: usize| words.get(at).copied().ok_or_else(|| format!("{line}: a word is missing"));
    Ok(match words[0] {
        "says" => Wanted::Says(all()),
        "silent" => Wanted::Silent(all()),
        "cached" => Wanted::Cached(word(1)?.parse().map_err(|_| "a number")?),
        "error" => Wanted::Error(all()),
        "code" => Wanted::Code(word(1)?.parse().map_err(|_| "a number")?),
        "base" => Wanted::Base(all()),
        "config" => Wanted::Config(word(1)?.into(), json(rest(line, 2))?),
        "env" => Wanted::Env(string(&all())?),
        "file" => Wanted::File {
            path: spaced(word(1)?),
            mode: octal(word(2)?)?,
            owner: ids(word(3)?)?,
            text: string(rest(line, 4))?,
        },
        "link" => Wanted::Link { path: word(1)?.into(), target: word(2)?.into() },
        "dir" => Wanted::Directory { path: word(1)?.into(), mode: octal(word(2)?)?, owner: ids(word(3)?)? },
        "gone" => Wanted::Gone(all()),
        "more" => Wanted::MoreFiles,
        "history" => Wanted::History(all()),
        "author" => Wanted::Author(all()),
        "created" => Wanted::Created(all()),
        "layers" => Wanted::Layers(word(1)?.parse().map_err(|_| "a number")?),
        "same" => Wanted::Same,
        "other" => Wanted::Other,
        "runs" => Wanted::Runs(string(&all())?),
        other => return Err(format!("nothing is called {other}")),
    })
}

fn spaced(path: &str) -> String {
    path.replace("%20", " ")
}

/// A line without its first words.
fn rest(line: &str, words: usize) -> &str {
    let mut rest = line.trim_start();
    for _ in 0..words {
        rest = rest.find(char::is_whitespace).map_or("", |at| rest[at..].trim_start());
    }
    rest
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{text}: {error}"))
}

fn string(text: &str) -> Result<String, String> {
    json(text)?.as_str().map(str::to_string).ok_or_else(|| format!("{text} is no string"))
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).map_err(|_| format!("{text:?} is no mode"))
}

fn ids(text: &str) -> Result<(u64, u64), String> {
    let pair = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    pair.ok_or_else(|| format!("{text:?} is no UID:GID"))
}
