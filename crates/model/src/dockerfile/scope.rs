//! What names stand for: build arguments and the environment of the image as far as it is built.

use super::{Dockerfile, DockerfileError, Result, instruction::Instruction};
use std::collections::BTreeMap;

/// Most build arguments of one build.
pub const ARGS_MAX: usize = 256;

/// Arguments that need no `ARG`: programs that are run see them, and nothing of them stays in the image or in the key of a
/// step. The last one says how old the image is.
pub const PREDEFINED: [&str; 11] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
    EPOCH,
];
/// Seconds since 1970 that no time in the image is later than (reproducible-builds.org, "SOURCE_DATE_EPOCH").
pub const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What is known before the first stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globals {
    given: BTreeMap<String, String>,
    declared: BTreeMap<String, Option<String>>,
}

impl Globals {
    /// Reads the `ARG`s in front of the first `FROM`. `arch` is the host's, as docker names it.
    ///
    /// # Errors
    /// A default that cannot be read.
    pub fn of(file: &Dockerfile, given: &BTreeMap<String, String>, arch: &str) -> Result<Self> {
        if given.len() > ARGS_MAX {
            return Err(DockerfileError::new(0, format!("more than {ARGS_MAX} build arguments")));
        }
        let mut globals = Self { given: given.clone(), declared: BTreeMap::new() };
        for side in ["BUILD", "TARGET"] {
            for (name, value) in [
                ("PLATFORM", format!("linux/{arch}")),
                ("OS", "linux".into()),
                ("ARCH", arch.into()),
                ("VARIANT", String::new()),
            ] {
                globals.declared.insert(format!("{side}{name}"), Some(value));
            }
        }
        for step in &file.globals {
            let expanded = step.instruction.expanded(step.line, file.escape, &|name| globals.value(name))?;
            let Instruction::Arg(args) = expanded else { continue };
            for (name, value) in args {
                let value = given.get(&name).cloned().or(value);
                globals.declared.insert(name, value);
            }
        }
        Ok(globals)
    }

    /// What a name stands for in `FROM`.
    pub fn value(&self, name: &str) -> Option<String> {
        self.declared.get(name).cloned().flatten()
    }

    /// An argument that was given.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }
}

/// What names stand for in a stage.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    globals: &'a Globals,
    declared: BTreeMap<String, Option<String>>,
}

impl<'a> Scope<'a> {
    /// The beginning of a stage: nothing is declared.
    pub fn new(globals: &'a Globals) -> Self {
        Self { globals, declared: BTreeMap::new() }
    }

    /// `ARG`: what was given counts, then the default, then what is known in front of the first stage.
    pub fn declare(&mut self, name: &str, default: Option<&str>) {
        let given = self.globals.given(name).map(str::to_string);
        let value = given.or_else(|| default.map(str::to_string)).or_else(|| self.globals.value(name));
        self.declared.insert(name.to_string(), value);
    }

    /// What a name stands for: the environment counts before arguments.
    pub fn value(&self, env: &[String], name: &str) -> Option<String> {
        let prefix = format!("{name}=");
        let of_env = env.iter().find_map(|pair| pair.strip_prefix(&prefix)).map(str::to_string);
        of_env.or_else(|| match self.declared.get(name) {
            Some(value) => value.clone(),
            None if PREDEFINED.contains(&name) => self.globals.given(name).map(str::to_string),
            None => None,
        })
    }

    /// Arguments that a program finds in its environment and that count for the key of its step.
    pub fn counted(&self, env: &[String]) -> BTreeMap<String, String> {
        let is_free = |name: &str| !env.iter().any(|pair| pair.split('=').next() == Some(name));
        let declared = self.declared.iter().filter(|(name, _)| is_free(name));
        declared.filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
    }

    /// Arguments that it finds there beside these.
    pub fn uncounted(&self, env: &[String]) -> BTreeMap<String, String> {
        let is_free = |name: &str| !env.iter().any(|pair| pair.split('=').next() == Some(name));
        let names = PREDEFINED.iter().filter(|name| is_free(name) && !self.declared.contains_key(**name));
        names.filter_map(|name| Some((name.to_string(), self.globals.given(name)?.to_string()))).collect()
    }
}
