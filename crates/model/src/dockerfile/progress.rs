//! A stage as far as it is built: what its instructions say to its config, and what is to be done to its files.

use super::{
    DockerfileError, Result,
    config::{self, created_by, env},
    instruction::{self, Copy, Instruction, Mount},
    lines::Line,
    scope::{Globals, Scope},
    stage::Step,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What an instruction does to files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    Nothing,
    /// A program is run.
    Run {
        /// Program and arguments.
        argv: Vec<String>,
        /// Build arguments that it finds in its environment.
        args: BTreeMap<String, String>,
        /// The same, of those that count for nothing else.
        uncounted: BTreeMap<String, String>,
        /// It runs without a network.
        is_offline: bool,
        /// What it finds beside the files of its stage, at absolute paths.
        mounts: Vec<Mount>,
    },
    /// Files are copied.
    Copy(Copy),
    /// A directory is made if it is missing.
    Directory(String),
}

/// An instruction that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What it does to files.
    pub work: Work,
    /// What the history says of it; of copied files it lacks what they hold.
    pub created_by: String,
}

/// A stage as far as it is built.
#[derive(Debug, Clone)]
pub struct Progress<'a> {
    /// The config that containers run with.
    pub config: Value,
    /// Who made it.
    pub author: Option<String>,
    scope: Scope<'a>,
    escape: char,
    has_cmd: bool,
}

impl<'a> Progress<'a> {
    /// The beginning of a stage, on an image with this config.
    ///
    /// Programs find a `PATH` in every image, as with docker, also in one of nothing.
    pub fn new(globals: &'a Globals, escape: char, mut config: Value) -> Self {
        config::give_path(&mut config);
        Self { config, author: None, scope: Scope::new(globals), escape, has_cmd: false }
    }

    /// Takes the instructions off the config that the base has for images that are built on it.
    ///
    /// # Errors
    /// One that cannot be read. `line` is that of `FROM`.
    pub fn triggers(&mut self, line: u32) -> Result<Vec<Step>> {
        let Some(fields) = self.config.as_object_mut() else { return Ok(vec![]) };
        let Some(Value::Array(texts)) = fields.remove("OnBuild") else { return Ok(vec![]) };
        if texts.len() > config::ENTRIES_MAX {
            return Err(DockerfileError::new(line, "the base image has too many triggers"));
        }
        let texts = texts.iter().filter_map(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
        let read = |text: &str| {
            // A trigger of a stranger's image may be anything.
            let text: String = text.chars().take(super::INSTRUCTION_BYTES_MAX).collect();
            let line = Line { number: line, text: text.clone(), heredocs: vec![] };
            let instruction = instruction::read(&line, '\\')?;
            if matches!(
                instruction,
                Instruction::From(_) | Instruction::Onbuild(_) | Instruction::Maintainer(_)
            ) {
                let message = format!("{} isn't allowed as an ONBUILD trigger", instruction.word());
                return Err(DockerfileError::new(line.number, message));
            }
            Ok(Step { line: line.number, text, instruction })
        };
        texts.map(read).collect()
    }

    /// Does what an instruction says to the config, and tells what is to be done to files.
    ///
    /// # Errors
    /// Names that cannot be replaced, ports that are none, limits.
    pub fn step(&mut self, step: &Step) -> Result<Told> {
        let before = env(&self.config);
        let instruction =
            step.instruction.expanded(step.line, self.escape, &|name| self.scope.value(&before, name))?;
        config::apply(&mut self.config, step.line, &instruction)?;
        let mut told = Told { work: Work::Nothing, created_by: created_by(&instruction) };
        match instruction {
            Instruction::Arg(args) => {
                for (name, default) in &args {
                    self.scope.declare(name, default.as_deref());
                }
            }
            Instruction::Cmd(_) => self.has_cmd = true,
            // What the base runs by default is not for another program.
            Instruction::Entrypoint(_) if !self.has_cmd => {
                if let Some(fields) = self.config.as_object_mut() {
                    fields.remove("Cmd");
                }
            }
            Instruction::Maintainer(text) => self.author = Some(text),
            Instruction::Workdir(_) => {
                let path = self.config["WorkingDir"].as_str().unwrap_or("/").to_string();
                told.created_by = created_by(&Instruction::Workdir(path.clone()));
                told.work = Work::Directory(path);
            }
            Instruction::Run(run) => {
                let (args, uncounted) = (self.scope.counted(&before), self.scope.uncounted(&before));
                let argv = config::argv(&self.config, &run.program);
                if argv.is_empty() {
                    return Err(DockerfileError::new(step.line, "RUN has no program"));
                }
                told.created_by = ran(&args, &argv);
                let mounts = run.mounts.iter().map(|mount| self.placed(mount)).collect();
                told.work = Work::Run { argv, args, uncounted, is_offline: run.is_offline, mounts };
            }
            Instruction::Copy(copy) => {
                copy.mode().map_err(|why| DockerfileError::new(step.line, why))?;
                if copy.target.is_empty()
                    || copy
                        .sources
                        .iter()
                        .any(|source| matches!(source, instruction::Source::Path(path) if path.is_empty()))
                {
                    let message = format!("a path of {} is empty", step.instruction.word());
                    return Err(
                        DockerfileError::new(step.line, message).hint("set the names that stand in it")
                    );
                }
                told.work = Work::Copy(copy);
            }
            _ => {}
        }
        Ok(told)
    }

    /// A mount at an absolute path.
    fn placed(&self, mount: &Mount) -> Mount {
        let mut placed = mount.clone();
        match &mut placed {
            Mount::Bind { target, .. }
            | Mount::Cache { target, .. }
            | Mount::Tmpfs { target }
            | Mount::Ssh { target, .. }
            | Mount::Secret { target: Some(target), .. } => *target = self.target(target).0,
            Mount::Secret { target: None, .. } => {}
        }
        placed
    }

    /// A target of this stage as an absolute path, and whether it is meant as a directory.
    pub fn target(&self, path: &str) -> (String, bool) {
        let is_directory = path.ends_with('/') || path == "." || path.ends_with("/.");
        (config::joined(self.config["WorkingDir"].as_str().unwrap_or("/"), path), is_directory)
    }

    /// The whole config of an image that ends here, without its layers.
    pub fn document(&self, base: &Value) -> Value {
        let mut whole = if base.is_object() { base.clone() } else { json!({}) };
        whole["config"] = self.config.clone();
        if let Some(author) = &self.author {
            whole["author"] = json!(author);
        }
        whole
    }
}

/// What the history says of a program: with the arguments that it found.
fn ran(args: &BTreeMap<String, String>, argv: &[String]) -> String {
    let words = argv.join(" ");
    if args.is_empty() {
        return words;
    }
    let args: Vec<String> = args.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("|{} {} {words}", args.len(), args.join(" "))
}
