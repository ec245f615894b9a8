//! Instructions: what one logical line asks for.
//!
//! Words are kept as they are written: what names in them stand for is known only while an image is built. So one
//! instruction is read twice, here into its parts, and by [`Instruction::expanded`] into what is done.

mod copy;
mod health;
mod mount;
mod pairs;

pub use copy::{Copy, Source};
pub use health::Check;
pub use mount::Mount;

use super::{DockerfileError, EXPANDED_BYTES_MAX, Result, heredoc::Heredoc, lines::Line, words};
use pairs::{arguments, pairs};
use serde::de::IgnoredAny;
use std::cell::Cell;

/// A program: a line for the shell, or words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A line for the stage's shell.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What runs.
    pub program: Program,
    /// It runs without a network.
    pub is_offline: bool,
    /// What it finds beside the files of its stage.
    pub mounts: Vec<Mount>,
}

/// `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Image or stage.
    pub image: String,
    /// Platform that is asked for.
    pub platform: Option<String>,
    /// What later instructions call the stage.
    pub name: Option<String>,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `FROM`.
    From(From),
    /// `RUN`.
    Run(Run),
    /// `CMD`.
    Cmd(Program),
    /// `ENTRYPOINT`.
    Entrypoint(Program),
    /// `LABEL`.
    Label(Vec<(String, String)>),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `EXPOSE`.
    Expose(Vec<String>),
    /// `ENV`.
    Env(Vec<(String, String)>),
    /// `ADD` and `COPY`.
    Copy(Copy),
    /// `VOLUME`.
    Volume(Vec<String>),
    /// `USER`.
    User(String),
    /// `WORKDIR`.
    Workdir(String),
    /// `ARG`: names, with what they stand for if nobody says otherwise.
    Arg(Vec<(String, Option<String>)>),
    /// `ONBUILD`: an instruction for images that are built on this one.
    Onbuild(String),
    /// `STOPSIGNAL`.
    StopSignal(String),
    /// `HEALTHCHECK`; `None` for none.
    Healthcheck(Option<Check>),
    /// `SHELL`.
    Shell(Vec<String>),
}

/// Flags in front of an instruction's words.
struct Flags(Vec<(String, Option<String>)>);

impl Flags {
    /// Takes the flags off a text.
    fn take(text: &str) -> (Self, &str) {
        let (mut flags, mut rest) = (vec![], text.trim_start());
        while let Some(flag) = rest.strip_prefix("--") {
            let (word, behind) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
            rest = behind.trim_start();
            if word.is_empty() {
                break;
            }
            flags.push(match word.split_once('=') {
                Some((name, value)) => (name.to_string(), Some(value.to_string())),
                None => (word.to_string(), None),
            });
        }
        (Self(flags), rest)
    }

    /// A flag that has a value.
    fn value(&mut self, name: &str) -> std::result::Result<Option<String>, String> {
        let Some(at) = self.0.iter().position(|(flag, _)| flag == name) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        if self.0.iter().any(|(flag, _)| flag == name) {
            return Err(format!("duplicate flag specified: {name}"));
        }
        match value.filter(|value| !value.is_empty()) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("missing a value on flag: {name}")),
        }
    }

    /// A flag that is on or off.
    fn switch(&mut self, name: &str) -> std::result::Result<bool, String> {
        let Some(at) = self.0.iter().position(|(flag, _)| flag == name) else { return Ok(false) };
        match self.0.remove(at).1.as_deref() {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(format!("expecting boolean value for flag {name}, not: {other:.40}")),
        }
    }

    /// Refuses what is left.
    fn end(self) -> std::result::Result<(), String> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(format!("unknown flag: {name:.40}")),
        }
    }
}

/// Reads an instruction.
///
/// # Errors
/// What is wrong with it, with its line.
pub fn read(line: &Line, escape: char) -> Result<Instruction> {
    let at = |message: String| DockerfileError::new(line.number, message);
    let (word, rest) = line.text.split_once(char::is_whitespace).unwrap_or((&line.text, ""));
    let word = word.to_ascii_uppercase();
    let rest = rest.trim();
    let (flags, bare) = Flags::take(rest);
    check_list(&word, bare).map_err(|message| at(message).hint(hint(&word)))?;
    let has_flags = matches!(word.as_str(), "FROM" | "RUN" | "COPY" | "ADD" | "HEALTHCHECK");
    if rest.is_empty() && KNOWN.contains(&word.as_str()) {
        return Err(at(format!("{word} requires at least one argument")));
    }
    let read = match word.as_str() {
        "FROM" => from(flags, bare),
        "RUN" => run(flags, bare, &line.heredocs).map(Instruction::Run),
        "COPY" | "ADD" => {
            copy::read(word == "ADD", flags, arguments(bare), &line.heredocs).map(Instruction::Copy)
        }
        "HEALTHCHECK" => health::read(flags, bare).map(Instruction::Healthcheck),
        _ if !has_flags => plain(line, &word, rest, escape),
        _ => Err(unknown(&word)),
    };
    read.map_err(|message| at(message).hint(hint(&word)))
}

const KNOWN: [&str; 18] = [
    "FROM",
    "RUN",
    "CMD",
    "LABEL",
    "MAINTAINER",
    "EXPOSE",
    "ENV",
    "ADD",
    "COPY",
    "ENTRYPOINT",
    "VOLUME",
    "USER",
    "WORKDIR",
    "ARG",
    "ONBUILD",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "SHELL",
];

fn unknown(word: &str) -> String {
    format!("unknown instruction: {word:.40}")
}

/// How an instruction is written.
fn hint(word: &str) -> &'static str {
    match word {
        "FROM" => "write FROM [--platform=OS/ARCH] IMAGE [AS NAME]",
        "RUN" => "write RUN [--mount=…] [--network=none] COMMAND, or RUN [\"program\", \"argument\"]",
        "CMD" => "write CMD COMMAND, or CMD [\"program\", \"argument\"]",
        "ENTRYPOINT" => "write ENTRYPOINT [\"program\", \"argument\"], or ENTRYPOINT COMMAND",
        "LABEL" => "write LABEL KEY=VALUE …, with quotes around values that have spaces",
        "MAINTAINER" => "write LABEL org.opencontainers.image.authors=\"NAME\"",
        "EXPOSE" => "write EXPOSE PORT[/PROTOCOL] …",
        "ENV" => "write ENV KEY=VALUE …, with quotes around values that have spaces",
        "COPY" => "write COPY [--from=STAGE] [--chown=USER:GROUP] [--chmod=MODE] SOURCE … TARGET",
        "ADD" => "write ADD [--chown=USER:GROUP] [--chmod=MODE] SOURCE … TARGET",
        "VOLUME" => "write VOLUME /PATH …",
        "USER" => "write USER NAME[:GROUP]",
        "WORKDIR" => "write WORKDIR /PATH",
        "ARG" => "write ARG NAME[=DEFAULT]",
        "ONBUILD" => "write ONBUILD INSTRUCTION",
        "STOPSIGNAL" => "write STOPSIGNAL SIGTERM, or a number",
        "HEALTHCHECK" => {
            "write HEALTHCHECK [--interval=30s] [--timeout=30s] [--start-period=0s] [--retries=3] CMD COMMAND, or NONE"
        }
        "SHELL" => "write SHELL [\"/bin/sh\", \"-c\"]",
        _ => {
            "write FROM, RUN, CMD, LABEL, EXPOSE, ENV, ADD, COPY, ENTRYPOINT, VOLUME, USER, WORKDIR, ARG, ONBUILD, STOPSIGNAL, HEALTHCHECK or SHELL"
        }
    }
}

/// Instructions without flags.
fn plain(line: &Line, word: &str, rest: &str, escape: char) -> std::result::Result<Instruction, String> {
    Ok(match word {
        "CMD" => Instruction::Cmd(program(rest)),
        "ENTRYPOINT" => Instruction::Entrypoint(program(rest)),
        "LABEL" => Instruction::Label(pairs("LABEL", rest, escape)?),
        "ENV" => Instruction::Env(pairs("ENV", rest, escape)?),
        "MAINTAINER" => Instruction::Maintainer(rest.to_string()),
        "EXPOSE" => Instruction::Expose(rest.split_whitespace().map(str::to_string).collect()),
        "VOLUME" => {
            let paths = arguments(rest);
            if paths.iter().any(|path| path.trim().is_empty()) || paths.is_empty() {
                return Err("VOLUME specified can not be an empty string".into());
            }
            Instruction::Volume(paths)
        }
        "USER" => Instruction::User(rest.to_string()),
        "WORKDIR" => Instruction::Workdir(rest.to_string()),
        "ARG" => Instruction::Arg(args(rest, escape)?),
        "ONBUILD" => onbuild(line, rest, escape)?,
        "STOPSIGNAL" => Instruction::StopSignal(rest.to_string()),
        "SHELL" => match list(rest) {
            Some(words) if !words.is_empty() => Instruction::Shell(words),
            _ => return Err("SHELL requires the arguments to be in JSON form".into()),
        },
        _ => return Err(unknown(word)),
    })
}

/// A list that is JSON and no list of words is no line for the shell either.
fn check_list(word: &str, text: &str) -> std::result::Result<(), String> {
    let text = match (word, text.split_once(char::is_whitespace)) {
        ("CMD" | "ENTRYPOINT" | "RUN" | "SHELL" | "ADD" | "COPY" | "VOLUME", _) => text,
        ("HEALTHCHECK", Some((_, program))) => program.trim_start(),
        _ => return Ok(()),
    };
    if text.starts_with('[') && list(text).is_none() && serde_json::from_str::<Vec<IgnoredAny>>(text).is_ok()
    {
        return Err("when using JSON array syntax, arrays must be comprised of strings only".into());
    }
    Ok(())
}

/// A JSON list of words.
fn list(text: &str) -> Option<Vec<String>> {
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn program(text: &str) -> Program {
    list(text).map_or_else(|| Program::Shell(text.to_string()), Program::Exec)
}

fn from(mut flags: Flags, text: &str) -> std::result::Result<Instruction, String> {
    let platform = flags.value("platform")?;
    flags.end()?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let name = match words.as_slice() {
        [_] => None,
        [_, word, name] if word.eq_ignore_ascii_case("as") => Some(name.to_ascii_lowercase()),
        _ => return Err("FROM requires either one or three arguments".into()),
    };
    if let Some(name) = &name {
        let mut bytes = name.bytes();
        let begins = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
        if !begins || !bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)) {
            let why = "name can't start with a number or contain symbols";
            return Err(format!("invalid name for build stage: {name:.64?}, {why}"));
        }
    }
    Ok(Instruction::From(From { image: words[0].to_string(), platform, name }))
}

fn run(mut flags: Flags, text: &str, heredocs: &[Heredoc]) -> std::result::Result<Run, String> {
    let network = flags.value("network")?;
    let mounts = mount::take(&mut flags)?;
    for (flag, way) in [
        ("security", "commands have the rights of any container"),
        ("device", "commands have the devices of any container"),
    ] {
        if flags.0.iter().any(|(name, _)| name == flag) {
            return Err(format!("the --{flag} option is not served: {way}"));
        }
    }
    flags.end()?;
    let is_offline = match network.as_deref() {
        None | Some("default") => false,
        Some("none") => true,
        Some(other) => {
            return Err(format!("the network {other:.40?} of RUN is not possible: default or none"));
        }
    };
    if text.is_empty() {
        return Err("RUN requires at least one argument".into());
    }
    let program = match heredocs {
        [] => program(text),
        [one] if super::heredoc::of_word(text).is_some() => {
            if one.content.starts_with("#!") {
                let way = "write the program in front: RUN python3 <<EOF";
                return Err(format!("a heredoc that begins with #! is not run: {way}"));
            }
            Program::Shell(one.content.clone())
        }
        several => {
            // The shell reads them as they are written.
            let mut whole = format!("{text}\n");
            for heredoc in several {
                whole.push_str(&heredoc.content);
                whole.push_str(&heredoc.name);
                whole.push('\n');
            }
            Program::Shell(whole)
        }
    };
    Ok(Run { program, is_offline, mounts })
}

fn args(text: &str, escape: char) -> std::result::Result<Vec<(String, Option<String>)>, String> {
    let read = |word: String| match word.split_once('=') {
        Some(("", _)) => Err("ARG names can not be blank".to_string()),
        Some((name, value)) => Ok((name.to_string(), Some(value.to_string()))),
        None => Ok((word, None)),
    };
    words::split(text, escape).into_iter().map(read).collect()
}

fn onbuild(line: &Line, text: &str, escape: char) -> std::result::Result<Instruction, String> {
    let word = text.split_whitespace().next().unwrap_or("").to_ascii_uppercase();
    match word.as_str() {
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
        "FROM" | "MAINTAINER" => return Err(format!("{word} isn't allowed as an ONBUILD trigger")),
        _ => {}
    }
    if !line.heredocs.is_empty() {
        return Err("a trigger with a heredoc is not kept".into());
    }
    let inner = Line { number: line.number, text: text.to_string(), heredocs: vec![] };
    read(&inner, escape).map_err(|error| error.message)?;
    Ok(Instruction::Onbuild(text.to_string()))
}

impl Instruction {
    /// The instruction with the names in it replaced, where the reference has that: not in programs, which the shell reads.
    ///
    /// # Errors
    /// A word that cannot be read, on `line`.
    pub fn expanded(&self, line: u32, escape: char, value: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let bytes = Cell::new(0);
        let one = |text: &String| {
            let expanded = words::expand(text, escape, value).and_then(|word| {
                bytes.set(bytes.get() + word.len());
                let is_fine = bytes.get() <= EXPANDED_BYTES_MAX;
                is_fine
                    .then_some(word)
                    .ok_or_else(|| format!("all values grow beyond {EXPANDED_BYTES_MAX} bytes"))
            });
            expanded
                .map_err(|why| DockerfileError::new(line, format!("failed to process {text:.100?}: {why}")))
        };
        let all = |texts: &[String]| texts.iter().map(one).collect::<Result<Vec<String>>>();
        let pairs = |pairs: &[(String, String)]| {
            pairs.iter().map(|(key, text)| Ok((one(key)?, one(text)?))).collect::<Result<Vec<_>>>()
        };
        Ok(match self {
            Self::From(from) => Self::From(From {
                image: one(&from.image)?,
                platform: from.platform.as_ref().map(one).transpose()?.filter(|text| !text.is_empty()),
                name: from.name.clone(),
            }),
            Self::Label(labels) => Self::Label(pairs(labels)?),
            Self::Env(env) => Self::Env(pairs(env)?),
            // A name may stand for several ports.
            Self::Expose(ports) => Self::Expose(
                all(ports)?.iter().flat_map(|text| text.split_whitespace()).map(str::to_string).collect(),
            ),
            Self::Copy(copy) => Self::Copy(copy.expanded(&one, |text| {
                words::expand_text(text, escape, value).map_err(|why| DockerfileError::new(line, why))
            })?),
            Self::Volume(paths) => Self::Volume(all(paths)?),
            Self::User(user) => Self::User(one(user)?),
            Self::Workdir(path) => Self::Workdir(one(path)?),
            Self::StopSignal(signal) => Self::StopSignal(one(signal)?),
            Self::Run(run) => {
                let mounts = run.mounts.iter().map(|mount| mount.expanded(&one)).collect::<Result<_>>()?;
                Self::Run(Run { mounts, ..run.clone() })
            }
            Self::Arg(args) => {
                let read = |(name, value): &(String, Option<String>)| {
                    Ok((one(name)?, value.as_ref().map(one).transpose()?))
                };
                Self::Arg(args.iter().map(read).collect::<Result<_>>()?)
            }
            other => other.clone(),
        })
    }

    /// Its word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::From(_) => "FROM",
            Self::Run(_) => "RUN",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Expose(_) => "EXPOSE",
            Self::Env(_) => "ENV",
            Self::Copy(copy) if copy.is_add => "ADD",
            Self::Copy(_) => "COPY",
            Self::Volume(_) => "VOLUME",
            Self::User(_) => "USER",
            Self::Workdir(_) => "WORKDIR",
            Self::Arg(_) => "ARG",
            Self::Onbuild(_) => "ONBUILD",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Shell(_) => "SHELL",
        }
    }
}
