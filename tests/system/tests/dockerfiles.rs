//! The build suite: Dockerfiles of every kind, each with what must come of it, built by the daemon through the Docker door.
//!
//! The cases are data, in `tests/system/dockerfiles`; how they are written is told in [`case`]. What they want is what
//! docker's Dockerfile reference says and its own builder does. Contexts are sent as archives, so that owners, modes and
//! links are what the case says, and no client decides anything before the daemon does.

mod case;
mod context;
mod image;

use crate::docker::{PROJECT, finish};
use case::{Case, Deed, Entry, Wanted};
use image::{Image, Thing};
use lab::{Docker, Lab};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
};

/// What the door said.
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// The Docker door without a client.
struct Door {
    socket: PathBuf,
    docker: Docker,
    /// Images that cases stand on, by their names.
    known: BTreeMap<String, Image>,
}

/// How a build ended.
struct Built {
    told: String,
    id: String,
    failure: Option<(String, Option<i64>)>,
}

impl Door {
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let mut door = UnixStream::connect(&self.socket).expect("the door");
        let head = format!(
            "{method} /v1.43{path} HTTP/1.1\r\nHost: docker\r\nX-Holm-Project: {PROJECT}\r\nConnection: close\r\n\
             Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        door.write_all(head.as_bytes()).and_then(|()| door.write_all(body)).expect("sends");
        let mut all = vec![];
        door.read_to_end(&mut all).expect("an answer");
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        let body = &all[end + 4..];
        let is_chunked = head.contains("transfer-encoding: chunked");
        Answer { status, body: if is_chunked { joined(body) } else { body.to_vec() } }
    }

    fn build(&self, tag: &str, asked: &[(String, String)], files: &[Entry]) -> Built {
        let (mut args, mut labels) = (Map::new(), Map::new());
        let mut query = format!("t={tag}");
        for (name, value) in asked {
            if let Some(name) = name.strip_prefix("arg.") {
                args.insert(name.into(), json!(value));
            } else if let Some(name) = name.strip_prefix("label.") {
                labels.insert(name.into(), json!(value));
            } else {
                let _ = write!(query, "&{name}={}", escaped(value));
            }
        }
        for (name, values) in [("buildargs", args), ("labels", labels)] {
            let _ = write!(query, "&{name}={}", escaped(&Value::from(values).to_string()));
        }
        let answer = self.ask("POST", &format!("/build?{query}"), &context::archive(files));
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let mut built = Built { told: String::new(), id: String::new(), failure: None };
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            built.told.push_str(line["stream"].as_str().unwrap_or(""));
            if let Some(id) = line["aux"]["ID"].as_str() {
                built.id = id.into();
            }
            let failure = if answer.status == 200 { &line["error"] } else { &line["message"] };
            if let Some(message) = failure.as_str() {
                built.failure = Some((message.into(), line["errorDetail"]["code"].as_i64()));
            }
        }
        built
    }

    fn image(&self, name: &str) -> Image {
        let answer = self.ask("GET", &format!("/images/{name}/get"), &[]);
        assert_eq!(answer.status, 200, "{name}: {}", String::from_utf8_lossy(&answer.body));
        Image::read(&answer.body)
    }

    /// An image that others stand on.
    fn base(&mut self, name: &str) -> Option<Image> {
        if name == "scratch" {
            return None;
        }
        if !self.known.contains_key(name) {
            let image = self.image(name);
            self.known.insert(name.into(), image);
        }
        self.known.get(name).cloned()
    }
}

/// The bytes of a chunked body (RFC 9112, section 7.1).
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut all = vec![];
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").expect("the size of a chunk");
        let size = String::from_utf8_lossy(&body[..end]);
        let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
        if size == 0 {
            return all;
        }
        all.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() {
            all.push(byte.into());
        } else {
            let _ = write!(all, "%{byte:02X}");
        }
        all
    })
}

/// Builds all cases of a file, and tells of all that did not come out as they want it.
fn check(name: &str) {
    let path = format!("{}/dockerfiles/{name}.cases", env!("CARGO_MANIFEST_DIR"));
    let cases = case::read(&fs::read_to_string(path).expect("the cases"));
    let lab = Lab::new();
    lab.project(PROJECT);
    let docker = Docker::find(&lab, PROJECT);
    docker.does(&["pull", "busybox"]);
    let mut door = Door { socket: lab.run().join("docker.sock"), docker, known: BTreeMap::new() };
    assert!(!cases.is_empty());
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "names of cases are their own");
    let mut wrong = vec![];
    for (at, case) in cases.iter().enumerate() {
        wrong.extend(
            play(&mut door, &format!("case{at}"), case)
                .into_iter()
                .map(|why| format!("{}: {why}", case.name)),
        );
    }
    assert!(wrong.is_empty(), "{} of {name}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(door.docker.does(&["ps", "-a", "-q"]), "", "no container is left");
    for what in ["image", "builder"] {
        door.docker.does(&[what, "prune", "-a", "-f"]);
    }
    finish(lab);
}

fn play(door: &mut Door, tag: &str, case: &Case) -> Vec<String> {
    let (mut files, mut wrong, mut last) = (BTreeMap::<String, (usize, Entry)>::new(), vec![], String::new());
    for (at, deed) in case.deeds.iter().enumerate() {
        match deed {
            Deed::Put(entry) => drop(files.insert(entry.path.clone(), (at, entry.clone()))),
            Deed::Remove(path) => drop(files.remove(path).expect("it is there")),
            Deed::Build { asked, wanted } => {
                // In the order in which they were written: a link comes behind what it links to.
                let mut sent: Vec<&(usize, Entry)> = files.values().collect();
                sent.sort_by_key(|(at, _)| *at);
                let sent: Vec<Entry> = sent.into_iter().map(|(_, entry)| entry.clone()).collect();
                let named = asked.iter().find(|(name, _)| name == "t").map_or(tag, |(_, name)| name.as_str());
                let rest: Vec<(String, String)> =
                    asked.iter().filter(|(name, _)| name != "t").cloned().collect();
                let built = door.build(named, &rest, &sent);
                wrong.extend(compare(door, named, &built, wanted, &last));
                last = built.id;
            }
        }
    }
    wrong
}

/// What of a build is not as it is wanted.
fn compare(door: &mut Door, tag: &str, built: &Built, wanted: &[Wanted], last: &str) -> Vec<String> {
    let mut wrong = vec![];
    let failure = built.failure.as_ref().map(|(message, _)| message.as_str());
    for one in wanted {
        let is_so = match one {
            Wanted::Says(text) => built.told.contains(text),
            Wanted::Silent(text) => !built.told.contains(text),
            Wanted::Cached(count) => built.told.matches("Using cache").count() == *count,
            Wanted::Error(text) => failure.is_some_and(|message| message.contains(text)),
            Wanted::Code(code) => built.failure.as_ref().is_some_and(|(_, found)| *found == Some(*code)),
            Wanted::Same => built.id == last,
            Wanted::Other => built.id != last,
            _ => true,
        };
        if !is_so {
            wrong.push(format!("{one:?}: {:?} {} {}", failure, built.id, built.told));
        }
    }
    let may_fail = wanted.iter().any(|one| matches!(one, Wanted::Error(_) | Wanted::Code(_)));
    match (failure, may_fail) {
        (None, false) => wrong.extend(compare_image(door, tag, wanted)),
        (Some(message), false) => wrong.push(format!("it fails: {message} {}", built.told)),
        (None, true) => wrong.push(format!("it does not fail: {}", built.told)),
        (Some(_), true) => {}
    }
    wrong
}

fn compare_image(door: &mut Door, tag: &str, wanted: &[Wanted]) -> Vec<String> {
    let base = wanted.iter().find_map(|one| match one {
        Wanted::Base(name) => Some(name.as_str()),
        _ => None,
    });
    let base = door.base(base.unwrap_or("busybox"));
    let image = door.image(tag);
    // What cases that come later stand on is what it is now.
    door.known.insert(tag.into(), image.clone());
    let mut wrong = compare_config(&image, base.as_ref(), wanted);
    wrong.extend(compare_files(&image, base.as_ref(), wanted));
    let document = &image.document;
    let history: Vec<&str> = document["history"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|line| line["created_by"].as_str())
        .collect();
    for one in wanted {
        let (is_so, found) = match one {
            Wanted::History(text) => (history.iter().any(|line| line.contains(text)), json!(history)),
            Wanted::Author(text) => (document["author"] == json!(text), document["author"].clone()),
            Wanted::Created(text) => (document["created"] == json!(text), document["created"].clone()),
            Wanted::Layers(count) => {
                let found = image.layers_above(base.as_ref());
                (found == *count, json!(found))
            }
            Wanted::Runs(text) => {
                let said = door.docker.says(&["run", "--rm", tag]);
                (said.out == *text, json!([said.code, said.out, said.err]))
            }
            _ => (true, Value::Null),
        };
        if !is_so {
            wrong.push(format!("{one:?}: {found}"));
        }
    }
    wrong
}

/// All fields that are other than the base's must be wanted, and the other way round.
fn compare_config(image: &Image, base: Option<&Image>, wanted: &[Wanted]) -> Vec<String> {
    let mut fields = base.map(Image::config).unwrap_or_default();
    for one in wanted {
        match one {
            Wanted::Config(name, Value::Null) => drop(fields.remove(name)),
            Wanted::Config(name, value) => drop(fields.insert(name.clone(), value.clone())),
            Wanted::Env(pair) => {
                let all = fields.entry("Env".into()).or_insert_with(|| json!([]));
                all.as_array_mut().expect("a list").push(json!(pair));
            }
            _ => {}
        }
    }
    let found = image.config();
    let names: BTreeSet<&String> = fields.keys().chain(found.keys()).collect();
    let wrong = names.into_iter().filter(|name| fields.get(*name) != found.get(*name));
    let told = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
    wrong
        .map(|name| {
            format!("config {name}: {} wanted, {} found", told(fields.get(name)), told(found.get(name)))
        })
        .collect()
}

fn compare_files(image: &Image, base: Option<&Image>, wanted: &[Wanted]) -> Vec<String> {
    let changes = image.changes(base);
    let all = if wanted.iter().any(|one| matches!(one, Wanted::Directory { .. })) {
        image.files()
    } else {
        BTreeMap::new()
    };
    let mut open: BTreeMap<&String, &Thing> =
        changes.iter().filter(|(_, thing)| !matches!(thing, Thing::Directory { .. })).collect();
    let mut wrong = vec![];
    for one in wanted {
        let (path, thing) = match one {
            Wanted::File { path, mode, owner, text } => {
                (path, Thing::File { mode: *mode, owner: *owner, content: text.clone().into_bytes() })
            }
            Wanted::Link { path, target } => (path, Thing::Link(target.clone())),
            Wanted::Gone(path) => (path, Thing::Gone),
            Wanted::Directory { path, mode, owner } => {
                let wants = Thing::Directory { mode: *mode, owner: *owner };
                if all.get(path) != Some(&wants) {
                    wrong.push(format!("{path}: {wants:?} wanted, {:?} found", all.get(path)));
                }
                continue;
            }
            _ => continue,
        };
        let found = open.remove(path);
        if found != Some(&thing) {
            wrong.push(format!("{path}: {} wanted, {} found", shown(Some(&thing)), shown(found)));
        }
    }
    if !wanted.iter().any(|one| matches!(one, Wanted::MoreFiles)) {
        wrong.extend(open.iter().map(|(path, thing)| format!("{path}: not wanted: {}", shown(Some(thing)))));
    }
    wrong
}

fn shown(thing: Option<&Thing>) -> String {
    match thing {
        None => "nothing".into(),
        Some(Thing::File { mode, owner, content }) => {
            format!("a file {mode:o} {owner:?} {:.200?}", String::from_utf8_lossy(content))
        }
        Some(other) => format!("{other:?}"),
    }
}

/// A test for each file of cases.
macro_rules! suites {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )*};
}

suites! { config words args copy add run stages ignored refused cache }

#[test]
fn there_are_enough_cases() {
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/dockerfiles")).expect("the cases");
    let texts = files.map(|file| fs::read_to_string(file.expect("a file").path()).expect("a text"));
    let builds: usize = texts
        .flat_map(|text| case::read(&text))
        .map(|case| case.deeds.iter().filter(|deed| matches!(deed, Deed::Build { .. })).count())
        .sum();
    assert!(builds >= 100, "{builds} builds");
}
