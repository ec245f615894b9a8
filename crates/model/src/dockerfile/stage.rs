//! Stages: what is built on what.

use super::{
    DockerfileError, Result, STAGES_MAX,
    instruction::{self, From, Instruction},
    lines,
    scope::{Globals, PREDEFINED},
};
use std::collections::{BTreeMap, BTreeSet};

/// An instruction of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Line of the file, from 1.
    pub line: u32,
    /// As it was written, in one line.
    pub text: String,
    /// What it asks for.
    pub instruction: Instruction,
}

/// What stands between one `FROM` and the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Line of its `FROM`.
    pub line: u32,
    /// As that was written.
    pub text: String,
    /// What it is built on.
    pub from: From,
    /// What is done on it.
    pub steps: Vec<Step>,
}

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The character that takes the meaning off the next one.
    pub escape: char,
    /// `ARG`s in front of the first `FROM`.
    pub globals: Vec<Step>,
    /// The stages; one at least.
    pub stages: Vec<Stage>,
}

/// What a stage is built on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing at all.
    Scratch,
    /// An image.
    Image(String),
    /// An earlier stage.
    Stage(usize),
    /// What was given under this name for the build.
    Given(String),
}

/// A stage that is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub stage: usize,
    /// On what.
    pub base: Base,
    /// Platform that is asked for.
    pub platform: Option<String>,
    /// Something was given in its place: its steps are not done.
    pub is_given: bool,
}

impl Step {
    /// Stages and images that it takes files from.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let (copied, mounts) = match &self.instruction {
            Instruction::Copy(copy) => (copy.from.as_deref(), &[][..]),
            Instruction::Run(run) => (None, &run.mounts[..]),
            _ => (None, &[][..]),
        };
        copied.into_iter().chain(mounts.iter().filter_map(|mount| mount.from()))
    }
}

impl Dockerfile {
    /// Reads a Dockerfile.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn read(text: &[u8]) -> Result<Self> {
        let lines = lines::read(text)?;
        let (mut globals, mut stages) = (vec![], Vec::<Stage>::new());
        for line in &lines.all {
            let instruction = instruction::read(line, lines.escape)?;
            let step = |instruction| Step { line: line.number, text: line.text.clone(), instruction };
            match (instruction, stages.last_mut()) {
                (Instruction::From(from), _) => {
                    check_stage(&stages, line.number, &from)?;
                    stages.push(Stage { line: line.number, text: line.text.clone(), from, steps: vec![] });
                }
                (instruction @ Instruction::Arg(_), None) => globals.push(step(instruction)),
                (_, None) => {
                    let message = "no build stage in current context";
                    return Err(DockerfileError::new(line.number, message).hint("begin with FROM IMAGE"));
                }
                (instruction, Some(stage)) => stage.steps.push(step(instruction)),
            }
        }
        if stages.is_empty() {
            return Err(DockerfileError::new(0, "no build stage in current context").hint("add FROM IMAGE"));
        }
        let file = Self { escape: lines.escape, globals, stages };
        file.check_sources()?;
        Ok(file)
    }

    /// A stage may copy from those before it.
    fn check_sources(&self) -> Result<()> {
        for (at, stage) in self.stages.iter().enumerate() {
            for step in &stage.steps {
                let mut numbers = step.sources().filter_map(|from| from.parse::<usize>().ok());
                if let Some(number) = numbers.find(|number| *number >= at) {
                    let message = format!("invalid from flag value {number}: it is no stage before this one");
                    return Err(DockerfileError::new(step.line, message).hint("stages count from 0"));
                }
            }
        }
        Ok(())
    }

    /// The stage before `before` that a name or a number means.
    pub fn stage_of(&self, text: &str, before: usize) -> Option<usize> {
        if let Ok(number) = text.parse::<usize>() {
            return (number < before).then_some(number);
        }
        let is_named =
            |stage: &Stage| stage.from.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(text));
        self.stages[..before].iter().rposition(is_named)
    }

    /// The stages that have to be built for a target (the last when `None`), in their order. What is `given` under a name counts
    /// before an image of that name, and before a stage of that name.
    ///
    /// # Errors
    /// No such target, or a name that cannot be read.
    pub fn plan(
        &self,
        target: Option<&str>,
        globals: &Globals,
        given: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Planned>> {
        let last = match target.filter(|text| !text.is_empty()) {
            None => self.stages.len() - 1,
            Some(text) => self.stage_of(text, self.stages.len()).ok_or_else(|| {
                let names: Vec<&str> =
                    self.stages.iter().filter_map(|stage| stage.from.name.as_deref()).collect();
                let message = format!("failed to reach build target {text:.64} in Dockerfile");
                DockerfileError::new(0, message).hint(format!("its stages are {}", names.join(", ")))
            })?,
        };
        let planned = (0..=last).map(|at| self.planned(at, globals, given)).collect::<Result<Vec<_>>>()?;
        let (mut needed, mut asked) = (BTreeSet::new(), vec![last]);
        while let Some(at) = asked.pop() {
            if !needed.insert(at) {
                continue;
            }
            if let Base::Stage(base) = planned[at].base {
                asked.push(base);
            }
            for step in self.stages[at].steps.iter().filter(|_| !planned[at].is_given) {
                asked.extend(step.sources().filter_map(|from| self.stage_of(from, at)));
            }
        }
        Ok(planned.into_iter().filter(|planned| needed.contains(&planned.stage)).collect())
    }

    fn planned(&self, at: usize, globals: &Globals, given: &dyn Fn(&str) -> bool) -> Result<Planned> {
        let stage = &self.stages[at];
        if let Some(name) = stage.from.name.as_ref().filter(|name| given(name)) {
            return Ok(Planned {
                stage: at,
                base: Base::Given(name.clone()),
                platform: None,
                is_given: true,
            });
        }
        let from = Instruction::From(stage.from.clone());
        let Instruction::From(from) = from.expanded(stage.line, self.escape, &|name| globals.value(name))?
        else {
            return Err(DockerfileError::new(stage.line, "FROM is no FROM"));
        };
        if from.image.is_empty() {
            let message = format!("base name ({}) should not be blank", stage.from.image);
            return Err(DockerfileError::new(stage.line, message)
                .hint("give the ARG in front of FROM a default, or send it by --build-arg"));
        }
        let base = match self.stage_of_name(&from.image, at) {
            Some(base) => Base::Stage(base),
            None if from.image == "scratch" => Base::Scratch,
            None if given(&from.image) => Base::Given(from.image),
            None => Base::Image(from.image),
        };
        Ok(Planned { stage: at, base, platform: from.platform, is_given: false })
    }

    /// `FROM` knows stages by their names alone.
    fn stage_of_name(&self, text: &str, before: usize) -> Option<usize> {
        if text.parse::<usize>().is_ok() { None } else { self.stage_of(text, before) }
    }

    /// Build arguments that no `ARG` asks for.
    pub fn unused<'a>(&self, given: &'a BTreeMap<String, String>) -> Vec<&'a str> {
        let steps = self.globals.iter().chain(self.stages.iter().flat_map(|stage| &stage.steps));
        let declared: BTreeSet<&String> = steps
            .filter_map(|step| match &step.instruction {
                Instruction::Arg(args) => Some(args.iter().map(|(name, _)| name)),
                _ => None,
            })
            .flatten()
            .collect();
        let is_unused = |name: &&String| !declared.contains(name) && !PREDEFINED.contains(&name.as_str());
        given.keys().filter(is_unused).map(String::as_str).collect()
    }

    /// How many steps the stages of a plan have, their `FROM`s included.
    pub fn count(&self, plan: &[Planned]) -> usize {
        let steps =
            |planned: &Planned| if planned.is_given { 0 } else { self.stages[planned.stage].steps.len() };
        plan.iter().map(|planned| 1 + steps(planned)).sum::<usize>() + self.globals.len()
    }
}

fn check_stage(stages: &[Stage], line: u32, from: &From) -> Result<()> {
    if stages.len() == STAGES_MAX {
        let message = format!("the Dockerfile has more than {STAGES_MAX} stages");
        return Err(DockerfileError::new(line, message).hint("split it into several files"));
    }
    let Some(name) = &from.name else { return Ok(()) };
    if name == "scratch" || name == "context" {
        return Err(
            DockerfileError::new(line, format!("{name} is no name for a stage")).hint("choose another")
        );
    }
    match stages.iter().find(|stage| stage.from.name.as_ref() == Some(name)) {
        Some(other) => {
            let message = format!("duplicate name {name}: the stage on line {} has it", other.line);
            Err(DockerfileError::new(line, message).hint("choose another"))
        }
        None => Ok(()),
    }
}
