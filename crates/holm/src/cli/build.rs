//! `holm build`: an image of containers from a directory and its Dockerfile, which the daemon reads and builds.
//!
//! The directory is sent as an archive that is made on the way, without what its `.dockerignore` leaves out. Links are
//! sent as links: what they lead to outside of the directory is not sent.

use super::{
    failure::{Failure, Result},
    input::Input,
    noun::pair,
    session::Session,
};
use api::v1::types::build::BuildQuery;
use model::{
    dockerfile::ignore::{IGNORE_BYTES_MAX, Ignore},
    error::Code,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    pin::Pin,
};
use tokio::io::AsyncRead;

/// Deepest directory that is sent.
const DEPTH_MAX: usize = 255;
/// What a Dockerfile that lies elsewhere is called in the context.
const ELSEWHERE: &str = ".holm.Dockerfile";

/// Options of `holm build`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "The output of programs goes to stderr, the id of the image to stdout.")]
pub struct BuildArgs {
    /// Directory with what the image is made of; `-` for an archive on standard input
    #[arg(value_name = "CONTEXT")]
    pub context: PathBuf,
    /// Name of the image, like shop/web:1; may be repeated
    #[arg(long = "tag", short = 't', value_name = "NAME")]
    pub tags: Vec<String>,
    /// The Dockerfile [default: Dockerfile in the context]
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Value of an ARG, KEY=VALUE; KEY alone takes it from the environment
    #[arg(long = "build-arg", value_name = "KEY=VALUE")]
    pub args: Vec<String>,
    /// Label of the image, KEY=VALUE; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub label: Vec<(String, String)>,
    /// The stage that is wanted [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Take nothing from earlier builds
    #[arg(long)]
    pub no_cache: bool,
    /// Ask registries for the images anew
    #[arg(long)]
    pub pull: bool,
    /// Network of programs that are run: none, or a network [default: the project's own]
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,
    /// Memory of programs that are run, in MiB
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
}

/// Runs `holm build`.
///
/// # Errors
/// What cannot be read here, what holm refuses, and the exit code of a program that failed.
pub async fn run(session: &Session, args: &BuildArgs) -> Result {
    let (reader, dockerfile) = context(args)?;
    let query = query(args, dockerfile)?;
    let mut lines = session.client.build_image(&query, reader).await?;
    let (mut talk, mut image) = (io::stderr(), None);
    while let Some(line) = lines.next().await? {
        if let Some(text) = line.text.filter(|_| !session.quiet) {
            talk.write_all(text.as_bytes()).map_err(|e| Failure::output(&e))?;
        }
        if let Some(message) = line.error {
            let exit = line.code.and_then(|code| u8::try_from(code).ok()).filter(|code| *code > 0);
            let failure = Failure::new(Code::Conflict, message);
            return Err(Failure { exit: exit.unwrap_or(failure.exit), ..failure });
        }
        image = line.image.or(image);
    }
    let image = image.ok_or_else(|| Failure::new(Code::Unavailable, "the build was cut off"))?;
    writeln!(io::stdout(), "{image}").map_err(|e| Failure::output(&e))
}

fn query(args: &BuildArgs, dockerfile: String) -> Result<BuildQuery> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for text in &args.args {
        match text.split_once('=') {
            Some(("", _)) => return Err(Failure::usage("write --build-arg KEY=VALUE")),
            Some((key, value)) => drop(values.insert(key.to_string(), value.to_string())),
            None => {
                if let Ok(value) = std::env::var(text) {
                    values.insert(text.clone(), value);
                }
            }
        }
    }
    let json = |all: &BTreeMap<String, String>| {
        (!all.is_empty()).then(|| serde_json::to_string(all).unwrap_or_default())
    };
    Ok(BuildQuery {
        tags: (!args.tags.is_empty()).then(|| args.tags.join(",")),
        dockerfile: Some(dockerfile),
        args: json(&values),
        labels: json(&args.label.iter().cloned().collect()),
        target: args.target.clone(),
        no_cache: args.no_cache.then_some(1),
        pull: args.pull.then_some(1),
        network: args.network.clone(),
        memory_mib: args.memory,
    })
}

/// The context as it is sent, and where the Dockerfile lies in it.
fn context(args: &BuildArgs) -> Result<(Pin<Box<dyn AsyncRead + Send>>, String)> {
    if args.context == Path::new("-") {
        let name = args.file.as_ref().map_or_else(|| "Dockerfile".into(), |file| file.display().to_string());
        return Ok((Box::pin(Input::stdin().into_reader()), name));
    }
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |e: io::Error| Failure::local(format!("cannot read {path}"), &e)
    };
    let root = fs::canonicalize(&args.context).map_err(failed(&args.context))?;
    if !root.is_dir() {
        return Err(Failure::usage(format!("{} is no directory", args.context.display()))
            .hint("name the directory that has the Dockerfile: holm build ."));
    }
    let file = args.file.clone().unwrap_or_else(|| root.join("Dockerfile"));
    let mut text = vec![];
    let (name, elsewhere) = if file == Path::new("-") {
        io::stdin().read_to_end(&mut text).map_err(failed(&file))?;
        (ELSEWHERE.to_string(), Some(text))
    } else {
        let there = fs::canonicalize(&file).map_err(failed(&file))?;
        match there.strip_prefix(&root) {
            Ok(below) => (below.display().to_string(), None),
            Err(_) => {
                File::open(&there)
                    .and_then(|mut file| file.read_to_end(&mut text))
                    .map_err(failed(&there))?;
                (ELSEWHERE.to_string(), Some(text))
            }
        }
    };
    let ignore = ignored(&root)?;
    let sent = Sent { root, ignore, dockerfile: name.clone(), elsewhere };
    Ok((Box::pin(Input::made_by(move |out| sent.write(out)).into_reader()), name))
}

fn ignored(root: &Path) -> Result<Ignore> {
    let path = root.join(".dockerignore");
    let mut text = vec![];
    match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ignore::default()),
        opened => opened
            .and_then(|file| file.take(IGNORE_BYTES_MAX as u64 + 1).read_to_end(&mut text))
            .map_err(|e| Failure::local(format!("cannot read {}", path.display()), &e))?,
    };
    Ignore::read(&text)
        .map_err(|error| Failure::usage(format!("line {}: {}", error.line, error.message)).hint(error.hint))
}

/// What is sent.
struct Sent {
    root: PathBuf,
    ignore: Ignore,
    dockerfile: String,
    elsewhere: Option<Vec<u8>>,
}

impl Sent {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut builder = tar::Builder::new(out);
        builder.follow_symlinks(false);
        if let Some(text) = &self.elsewhere {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, ELSEWHERE, &text[..])?;
        }
        let mut waiting: Vec<(PathBuf, usize)> = vec![(PathBuf::new(), 0)];
        while let Some((below, depth)) = waiting.pop() {
            let mut entries = fs::read_dir(self.root.join(&below))?.collect::<io::Result<Vec<_>>>()?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let name = below.join(entry.file_name());
                let kind = entry.file_type()?;
                let is_out = self.leaves_out(&name);
                if kind.is_dir() && depth < DEPTH_MAX && (!is_out || self.ignore.takes_back()) {
                    waiting.push((name.clone(), depth + 1));
                }
                // Sockets and devices are nothing that an image could have.
                if !is_out && (kind.is_dir() || kind.is_file() || kind.is_symlink()) {
                    builder.append_path_with_name(entry.path(), &name)?;
                }
            }
        }
        builder.finish()
    }

    /// The daemon needs the Dockerfile and what is left out; it leaves them out itself.
    fn leaves_out(&self, name: &Path) -> bool {
        let text = name.to_string_lossy();
        text != self.dockerfile && text != ".dockerignore" && self.ignore.leaves_out(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_sent_without_what_is_left_out() {
        let place = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("Dockerfile", "FROM x"),
            (".dockerignore", "*\n!kept\n"),
            ("a", "a"),
            ("kept/b", "b"),
            ("d/c", "c"),
        ] {
            let path = place.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", place.path().join("kept/link")).unwrap();
        let root = place.path().to_path_buf();
        let ignore = ignored(&root).unwrap();
        let sent = Sent { root, ignore, dockerfile: "Dockerfile".into(), elsewhere: None };
        let mut bytes = vec![];
        sent.write(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut names: Vec<(String, bool)> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.path().unwrap().display().to_string();
                (name, entry.header().entry_type().is_symlink())
            })
            .collect();
        names.sort();
        let wanted = [
            (".dockerignore", false),
            ("Dockerfile", false),
            ("kept", false),
            ("kept/b", false),
            ("kept/link", true),
        ];
        assert_eq!(names, wanted.map(|(name, is_link)| (name.to_string(), is_link)));
    }
}
