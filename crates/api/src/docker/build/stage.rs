//! Stages: their steps one after the other, each on what the ones before made.

use super::{
    builder::{Builder, Fault, Plan, short},
    chain::Key,
    given::Given,
    mounts::Extra,
    numbers::{Numbers, counts},
    side::{Made, Stages},
};
use crate::{
    docker::{container::environment, image, network},
    error::{Failure, Result},
    streams::{CommitAsked, FilesIn, ImageIn, Pick, Reader, Target},
};
use control::image::NewStep;
use futures::{FutureExt, future::BoxFuture};
use model::{
    dockerfile::{
        config::{self, env},
        instruction::Instruction,
        progress::{Progress, Told, Work},
        stage::{self, Planned, Step},
    },
    error::Code,
    id::ImageId,
    image::{Image, ImageContent},
    instance::ContainerSpec,
};
use serde_json::{Value, json};
use std::io::Cursor;

/// Most characters of an instruction that the history of an image tells.
const HISTORY_CHARS_MAX: usize = 16 << 10;
/// Where programs look for the socket of an SSH agent (ssh-agent(1)).
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";
/// An archive without entries: two empty blocks.
const ARCHIVE_END_BYTES: usize = 1024;

/// What containers of the next step stand on.
#[derive(Debug, Clone)]
pub struct Base {
    /// The step's record.
    pub id: ImageId,
    /// What it holds.
    pub content: ImageContent,
    /// Docker's id of it.
    pub config_digest: String,
}

/// A stage as far as it is built.
#[derive(Debug, Clone)]
pub struct Built {
    /// Files; `None` where there are none.
    pub base: Option<Base>,
    /// The config of the image, all of it but its layers.
    pub document: Value,
    /// What it depends on.
    pub key: Key,
    /// The config is newer than the one of `base`.
    is_ahead: bool,
    /// Steps behind this one may come from earlier builds.
    is_known: bool,
}

/// A step that is worked on.
pub(super) struct StageWork<'a> {
    pub plan: &'a Plan,
    /// The stages of the build.
    pub stages: &'a Stages,
    /// Number of this stage.
    pub stage: usize,
    /// Line of the step.
    pub line: u32,
    /// The config of containers, as it is at this step.
    pub progress: &'a Progress<'a>,
}

impl Builder {
    /// Builds a stage, which waits for those that it needs.
    pub(super) async fn stage(
        &self,
        plan: &Plan,
        planned: &Planned,
        stages: &Stages,
    ) -> std::result::Result<Built, Fault> {
        let stage = &plan.file.stages[planned.stage];
        self.tell_step(plan.steps, &stage.text).await;
        self.at_line(stage.line);
        image::check_platform(planned.platform.as_deref())?;
        let mut numbers = Numbers::of(&plan.file, planned);
        let mut now = self.begin(plan, planned, stages, &mut numbers).boxed().await?;
        self.tell.say(format!(" ---> {}\n", now.shown())).await;
        let config = now.document["config"].clone();
        let mut progress = Progress::new(&plan.globals, plan.file.escape, config);
        let triggers = progress.triggers(stage.line).map_err(|error| self.wrong(&error))?;
        if !triggers.is_empty() {
            let word = if triggers.len() == 1 { "trigger" } else { "triggers" };
            self.tell.say(format!("# Executing {} build {word}\n", triggers.len())).await;
            now.is_ahead = true;
        }
        for step in &triggers {
            self.until_sources(plan, planned.stage, stages, step).await?;
            // On the heap: stages are worked on side by side, and what a step is made of is large.
            self.step(plan, planned.stage, stages, step, &mut progress, &mut now).boxed().await?;
        }
        for step in stage.steps.iter().filter(|_| !planned.is_given) {
            self.until_sources(plan, planned.stage, stages, step).await?;
            self.tell_step(plan.steps, &step.text).await;
            if counts(step) {
                self.tell.begin(|| numbers.next(&step.text)).await;
            }
            self.step(plan, planned.stage, stages, step, &mut progress, &mut now).boxed().await?;
            if counts(step) {
                self.tell.end().await;
            }
            self.tell.say(format!(" ---> {}\n", now.shown())).await;
        }
        Ok(now)
    }

    /// What a stage is built on.
    async fn begin(
        &self,
        plan: &Plan,
        planned: &Planned,
        stages: &Stages,
        numbers: &mut Numbers,
    ) -> Result<Built> {
        self.check()?;
        match &planned.base {
            stage::Base::Scratch => {
                Ok(Built::nothing(Key::base(&["scratch", &self.epoch()]), !self.asked.no_cache))
            }
            stage::Base::Stage(at) => {
                let built = self.unless_cut(async { Ok(stages.get(*at).await) }).await?;
                built.ok_or_else(|| Failure::new(Code::Internal, "a stage was not built"))
            }
            stage::Base::Image(name) => self.begin_on_image(name, numbers).await,
            stage::Base::Given(name) => match self.asked.given.get(name) {
                Some(Given::Directory(directory)) => {
                    self.begin_on_files(plan, name, directory, numbers).await
                }
                Some(Given::Image(image)) => self.begin_on_image(image, numbers).await,
                None => self.begin_on_image(name, numbers).await,
            },
        }
    }

    async fn begin_on_image(&self, name: &str, numbers: &mut Numbers) -> Result<Built> {
        let full = image::found::parse(name).map_or_else(|_| name.to_string(), |full| full.to_string());
        let local = self.image(name).await?;
        let details = self.door.app().streams().image_details(&local.content).await?;
        self.tell.begin(|| numbers.next(&format!("FROM {full}"))).await;
        self.tell.end().await;
        let key = Key::base(&[&local.oci.config_digest, &self.epoch()]);
        let base = self.stand_on(&local.content.digest, "", name).await?;
        let document = details.config;
        Ok(Built { base: Some(base), document, ..Built::nothing(key, !self.asked.no_cache) })
    }

    /// The time that the whole image is of, for keys.
    pub(super) fn epoch(&self) -> String {
        self.newest_s.map(|seconds| seconds.to_string()).unwrap_or_default()
    }

    /// Waits for the stages that a step takes files from.
    async fn until_sources(&self, plan: &Plan, stage: usize, stages: &Stages, step: &Step) -> Result<()> {
        for from in step.sources() {
            self.stage_named(plan, stages, stage, from).await?;
        }
        Ok(())
    }

    /// A record for what the node has, on which containers of this build can stand.
    pub(super) async fn stand_on(&self, digest: &str, key: &str, what: &str) -> Result<Base> {
        let step = NewStep {
            key: key.to_string(),
            digest: digest.to_string(),
            build: self.build.to_string(),
            what: what.to_string(),
        };
        let made = self.door.control().keep_step(&self.caller, &step).await?;
        self.base_of(&made).await
    }

    async fn base_of(&self, step: &Image) -> Result<Base> {
        let local = image::ready(&self.door, step.meta.id).await?;
        Ok(Base { id: step.meta.id, config_digest: local.oci.config_digest.clone(), content: local.content })
    }

    async fn step(
        &self,
        plan: &Plan,
        stage: usize,
        stages: &Stages,
        step: &Step,
        progress: &mut Progress<'_>,
        now: &mut Built,
    ) -> std::result::Result<(), Fault> {
        self.check()?;
        self.at_line(step.line);
        let told = progress.step(step).map_err(|error| self.wrong(&error))?;
        check_signal(step, progress)?;
        let work = StageWork { plan, stages, stage, line: step.line, progress };
        match &told.work {
            Work::Nothing => {
                now.key = now.key.next(&[&told.created_by]);
                self.mark(now, &told.created_by).await;
                now.document = progress.document(&now.document);
                self.remember(now, &told.created_by, true);
                now.is_ahead = true;
                Ok(())
            }
            Work::Copy(copy) => {
                let _place = self.place_to_work().await?;
                let files = self.gather(&work, copy).boxed().await.map_err(|fault| at_line(fault, &work))?;
                let key = now.key.next(&[&told.created_by, &step.text, &files.digest]);
                let (created_by, before) = (files.created_by(copy), now.clone());
                let make = async {
                    let placed = self.place(&work, &before, copy, &files, &created_by).await;
                    placed.map_err(|fault| at_line(fault, &work))
                };
                self.do_step(now, key, progress, &created_by, make.boxed()).await
            }
            Work::Directory(path) => {
                let _place = self.place_to_work().await?;
                let (key, before) = (now.key.next(&[&told.created_by]), now.clone());
                let make = async {
                    self.make_directory(&work, &before, path, &told.created_by).await.map_err(Fault::from)
                };
                self.do_step(now, key, progress, &told.created_by, make.boxed()).await
            }
            Work::Run { mounts, .. } => {
                let _place = self.place_to_work().await?;
                let extra = self.bound(&work, mounts).boxed().await.map_err(|fault| at_line(fault, &work))?;
                let (key, before) = (self.key_of_run(now, &told.work, &extra), now.clone());
                let make = async {
                    let extra = self.lent(extra, mounts).await;
                    let extra = extra.map_err(|failure| at_line(failure.into(), &work))?;
                    self.run_step(&work, &before, &told, &extra).await
                };
                self.do_step(now, key, progress, &told.created_by, make.boxed()).await
            }
        }
    }

    /// What running a program depends on.
    fn key_of_run(&self, now: &Built, work: &Work, extra: &Extra) -> Key {
        let Work::Run { argv, args, is_offline, mounts, .. } = work else { return now.key.clone() };
        // The environment and all else of the config is in the key of the steps before.
        let counted: Vec<String> = args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let parts = [argv.join("\0"), counted.join("\0"), is_offline.to_string(), self.asked.network.clone()];
        // A secret is in no key: who has another one does not run the step again.
        let shown = if mounts.is_empty() { vec![] } else { vec![format!("{mounts:?}")] };
        let parts: Vec<&str> = std::iter::once("RUN")
            .chain(parts.iter().chain(&shown).chain(&extra.digests).map(String::as_str))
            .collect();
        now.key.next(&parts)
    }

    /// Takes a step that changes files from an earlier build or another stage, or makes it.
    async fn do_step(
        &self,
        now: &mut Built,
        key: Key,
        progress: &Progress<'_>,
        what: &str,
        make: BoxFuture<'_, std::result::Result<ImageIn, Fault>>,
    ) -> std::result::Result<(), Fault> {
        if self.take_known(now, key.clone(), progress).await? {
            return Ok(());
        }
        let kept = async { Ok(self.keep(&key, make.await?, what).await?) };
        let (base, document) = self.once(key.text(), kept).await?;
        (now.base, now.document, now.key, now.is_ahead) = (Some(base), document, key, false);
        Ok(())
    }

    /// Notes a step that changed no files, and says if an earlier build had it. There is nothing to take: it is done either way.
    async fn mark(&self, now: &Built, what: &str) {
        if now.is_known && self.door.control().knows_step(&self.caller, now.key.text()) {
            self.tell.say(" ---> Using cache\n").await;
        }
        let Some(base) = &now.base else { return };
        self.note_mark(NewStep {
            key: now.key.text().to_string(),
            digest: base.content.digest.clone(),
            build: self.build.to_string(),
            what: what.to_string(),
        });
    }

    /// Takes a step from an earlier build, if that has the same.
    pub(super) async fn take_known(
        &self,
        now: &mut Built,
        key: Key,
        progress: &Progress<'_>,
    ) -> Result<bool> {
        if !now.is_known {
            return Ok(false);
        }
        let Some(step) = self.door.control().step_of_key(&self.caller, key.text()) else {
            now.is_known = false;
            return Ok(false);
        };
        let base = self.base_of(&step.record).await?;
        let details = self.door.app().streams().image_details(&base.content).await?;
        self.door.control().use_step(&self.caller, step.record.meta.id).await?;
        // A container of this build stands on a record of its own, which nobody prunes meanwhile.
        let base = Base { id: self.stand_on(&base.content.digest, "", "").await?.id, ..base };
        now.document = progress.document(&details.config);
        (now.base, now.key, now.is_ahead) = (Some(base), key, false);
        self.tell.cached();
        self.tell.say(" ---> Using cache\n").await;
        Ok(true)
    }

    /// Keeps what a step made.
    async fn keep(&self, key: &Key, made: ImageIn, what: &str) -> Result<Made> {
        let base = self.stand_on(&made.digest, key.text(), what).await?;
        let details = self.door.app().streams().image_details(&base.content).await?;
        Ok((base, details.config))
    }

    /// Goes on with what was made.
    pub(super) async fn stand(&self, now: &mut Built, key: Key, made: ImageIn, what: &str) -> Result<()> {
        let (base, document) = self.keep(&key, made, what).await?;
        (now.base, now.document, now.key, now.is_ahead) = (Some(base), document, key, false);
        Ok(())
    }

    /// One line more in the history of the image.
    pub(super) fn remember(&self, now: &mut Built, created_by: &str, is_empty: bool) {
        now.document = self.remembered(&now.document, created_by, is_empty);
    }

    /// The same of a config that is being made.
    pub(super) fn remembered(&self, document: &Value, created_by: &str, is_empty: bool) -> Value {
        let mut next = if document.is_object() { document.clone() } else { json!({}) };
        let time = self.time();
        let created_by: String = created_by.chars().take(HISTORY_CHARS_MAX).collect();
        let mut line = json!({ "created": time, "created_by": created_by });
        if is_empty {
            line["empty_layer"] = json!(true);
        }
        match next["history"].as_array_mut() {
            Some(lines) => lines.push(line),
            None => next["history"] = json!([line]),
        }
        next["created"] = json!(time);
        next
    }

    /// Runs a program on what is there, and makes a layer of what it changed.
    async fn run_step(
        &self,
        work: &StageWork<'_>,
        now: &Built,
        told: &Told,
        extra: &Extra,
    ) -> std::result::Result<ImageIn, Fault> {
        let Work::Run { argv, args, uncounted, is_offline, .. } = &told.work else {
            return Err(Failure::new(Code::Internal, "RUN is no RUN").into());
        };
        let Some(base) = &now.base else {
            let message =
                format!("line {}: there is nothing to run in an image that is FROM scratch", work.line);
            return Err(Failure::new(Code::Invalid, message).hint("COPY a program into it first").into());
        };
        let config = &work.progress.config;
        let mut variables = environment::read(&env(config))?.set;
        variables.extend(args.iter().chain(uncounted).map(|(name, value)| (name.clone(), value.clone())));
        if let Some(agent) = extra.agents.first() {
            variables.entry(AGENT_VARIABLE.into()).or_insert_with(|| agent.target.clone());
        }
        let text = |name: &str| config[name].as_str().filter(|text| !text.is_empty()).map(str::to_string);
        let spec = ContainerSpec {
            entrypoint: Some(argv.clone()),
            env: variables,
            working_dir: Some(text("WorkingDir").unwrap_or_else(|| "/".into())),
            user: Some(text("User").unwrap_or_else(|| "0".into())),
            ..ContainerSpec::default()
        };
        let mode = if *is_offline { "none" } else { self.asked.network.as_str() };
        let nics = network::nics(&self.door, &self.caller, mode, &Default::default(), false)?;
        let (room, lent) = self.enter_with(base, spec, nics, extra).await?;
        self.tell.say(format!(" ---> Running in {}\n", crate::docker::id::short(room.meta.id))).await;
        let outcome = self.run_program(&room, &argv.join(" ")).await;
        drop(lent);
        let made = match outcome {
            Ok(()) => self.commit(&room, base, now, work, &told.created_by).await.map_err(Fault::from),
            Err(fault) => Err(fault),
        };
        self.leave(room.meta.id).await;
        self.until_gone(extra, &room).await;
        made
    }

    /// Makes an image of what a step's container changed.
    pub(super) async fn commit(
        &self,
        room: &model::instance::Instance,
        base: &Base,
        now: &Built,
        work: &StageWork<'_>,
        created_by: &str,
    ) -> Result<ImageIn> {
        self.check()?;
        let document = self.remembered(&work.progress.document(&now.document), created_by, false);
        let how = CommitAsked { pauses: false, newest_s: self.newest_s };
        Ok(self.door.app().streams().commit(room, &base.content, document, how).await?)
    }

    /// An archive with a directory.
    async fn directory(&self, path: &str) -> Result<Reader> {
        // Of nothing, which is copied to it.
        let nothing = Box::new(Cursor::new(vec![0; ARCHIVE_END_BYTES]));
        let empty = self.door.app().streams().source_archive(nothing, "").await?;
        let picked = empty.pick(Pick { pattern: ".".into(), ..Pick::default() }).await?;
        let (path, newest_s) = (path.to_string(), self.newest_s);
        Ok(picked.send(Target {
            path,
            is_directory: true,
            is_new: true,
            made: vec![],
            is_last: true,
            newest_s,
        }))
    }

    /// Makes a directory, if it is missing.
    async fn make_directory(
        &self,
        work: &StageWork<'_>,
        now: &Built,
        path: &str,
        created_by: &str,
    ) -> Result<ImageIn> {
        let streams = self.door.app().streams();
        let document =
            |is_empty| self.remembered(&work.progress.document(&now.document), created_by, is_empty);
        let Some(base) = &now.base else {
            return Ok(streams.image_of_root(self.directory(path).await?, document(false)).await?);
        };
        let room = self.enter(base, super::copy::idle(None), Some(vec![])).await?;
        let outcome = async {
            if self.look(&room, path).await?.is_some() {
                return Ok(streams.image_of_config(&base.content, document(true)).await?);
            }
            let into = FilesIn { path: "/".into(), keeps_kinds: true, as_user: false };
            streams.files_in(&room, into, self.directory(path).await?).await?;
            self.commit(&room, base, now, work, created_by).await
        }
        .await;
        self.leave(room.meta.id).await;
        outcome
    }

    /// Makes the image of a build whose last steps changed its config alone, and adds the labels that were asked for.
    pub(super) async fn conclude(&self, mut built: Built) -> Result<Built> {
        if !self.asked.labels.is_empty() {
            let pairs = self.asked.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            let label = Instruction::Label(pairs);
            let created_by = config::created_by(&label);
            config::apply(&mut built.document["config"], 0, &label).map_err(|error| self.wrong(&error))?;
            built.key = built.key.next(&[&created_by]);
            self.remember(&mut built, &created_by, true);
            built.is_ahead = true;
        }
        let Some(base) = built.base.clone().filter(|_| built.is_ahead) else { return Ok(built) };
        let key = built.key.next(&["image"]);
        if built.is_known
            && let Some(step) = self.door.control().step_of_key(&self.caller, key.text())
        {
            self.door.control().use_step(&self.caller, step.record.meta.id).await?;
            built.base = Some(self.base_of(&step.record).await?);
            return Ok(built);
        }
        let made = self.door.app().streams().image_of_config(&base.content, built.document.clone()).await?;
        self.stand(&mut built, key, made, "the image").await?;
        Ok(built)
    }
}

impl Built {
    /// The beginning of a stage without files. Its steps may come from earlier builds if `is_known`.
    pub(super) fn nothing(key: Key, is_known: bool) -> Self {
        Self { base: None, document: json!({}), key, is_ahead: false, is_known }
    }

    /// What people are shown: the id of its image, or of its step while that is a config alone.
    fn shown(&self) -> &str {
        match &self.base {
            Some(base) if !self.is_ahead => short(&base.config_digest),
            _ => self.key.short(),
        }
    }
}

/// Says which line could not be done.
fn at_line(fault: Fault, work: &StageWork<'_>) -> Fault {
    match fault {
        Fault::Refused(mut failure) => {
            failure.error.message =
                format!("{} (line {} of the Dockerfile)", failure.error.message, work.line);
            Fault::Refused(failure)
        }
        other => other,
    }
}

fn check_signal(step: &Step, progress: &Progress<'_>) -> Result<()> {
    let Instruction::StopSignal(_) = &step.instruction else { return Ok(()) };
    let text = progress.config["StopSignal"].as_str().unwrap_or("");
    match crate::docker::container::signal_number(text) {
        Some(_) => Ok(()),
        None => Err(Failure::new(Code::Invalid, format!("invalid signal {text:.32?} on line {}", step.line))
            .hint("write STOPSIGNAL SIGTERM, or a number")),
    }
}
