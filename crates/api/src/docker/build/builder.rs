//! A build from its context to its image.

use super::{
    asked::Asked,
    room::Ended,
    stage::{Built, StageWork},
    tell::Tell,
};
use crate::{
    docker::{
        door::Door,
        frame::told,
        image::{self, Logins, adopt, found::Local},
    },
    error::{Failure, Result},
    streams::{Reader, SourceFiles},
    v1::audit::{deed, note_as},
};
use control::{Caller, image::NewStep};
use jiff::Timestamp;
use model::{
    dockerfile::{
        DOCKERFILE_BYTES_MAX, Dockerfile, DockerfileError,
        ignore::{IGNORE_BYTES_MAX, Ignore},
        scope::{EPOCH, Globals},
    },
    error::Code,
    id::InstanceId,
    image_reference::Reference,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio_util::sync::CancellationToken;

/// Digits of an id that people are shown.
const SHORT_DIGITS: usize = 12;

/// Most steps of one build that changed no files and are kept for the next one.
const MARKS_MAX: usize = 128;

/// Why a build ended without an image.
pub enum Fault {
    /// For this reason.
    Refused(Failure),
    /// A program of it failed.
    Ran {
        /// Its exit code.
        code: i32,
        /// In docker's words.
        message: String,
    },
}

impl<E: Into<Failure>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// What a Dockerfile's fault is on the wire.
pub fn wrong(error: &DockerfileError) -> Failure {
    let at = if error.line == 0 { String::new() } else { format!(" on line {}", error.line) };
    Failure::new(Code::Invalid, format!("dockerfile parse error{at}: {}", error.message)).hint(&error.hint)
}

/// A build that goes on.
pub struct Builder {
    pub(super) door: Door,
    pub(super) caller: Caller,
    pub(super) asked: Asked,
    pub(super) logins: Logins,
    pub(super) tell: Tell,
    /// Its id, in hex.
    pub(super) build: String,
    /// Cancelled when nobody hears it any more.
    pub(super) cut: CancellationToken,
    /// No time in the image is later, in seconds since 1970.
    pub(super) newest_s: Option<i64>,
    rooms: Mutex<Vec<InstanceId>>,
    /// Steps that changed no files, kept together when the build ends.
    marks: Mutex<Vec<NewStep>>,
    number: AtomicUsize,
}

/// What all stages of a build share.
pub(super) struct Plan {
    pub file: Dockerfile,
    pub globals: Globals,
    pub context: Arc<dyn SourceFiles>,
    /// Steps in all, for people.
    pub steps: usize,
}

impl Builder {
    /// A build of what is asked for.
    pub fn new(
        door: Door,
        caller: Caller,
        asked: Asked,
        logins: Logins,
        tell: Tell,
        cut: CancellationToken,
    ) -> Self {
        let build = format!("{:032x}", rand::random::<u128>());
        let newest_s = asked.args.get(EPOCH).and_then(|text| text.parse().ok());
        let (rooms, marks, number) = (Mutex::default(), Mutex::default(), AtomicUsize::new(0));
        Self { door, caller, asked, logins, tell, build, cut, newest_s, rooms, marks, number }
    }

    pub(super) fn next_number(&self) -> usize {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn note_room(&self, id: InstanceId) {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    pub(super) fn note_mark(&self, mark: NewStep) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() < MARKS_MAX {
            marks.push(mark);
        }
    }

    async fn keep_marks(&self) {
        let marks = std::mem::take(&mut *self.marks.lock().unwrap_or_else(PoisonError::into_inner));
        if !marks.is_empty()
            && let Err(error) = self.door.control().keep_steps(&self.caller, &marks).await
        {
            tracing::warn!(%error, "steps of a build are not kept for the next one");
        }
    }

    pub(super) fn rooms(&self) -> Vec<InstanceId> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The time that is written into the image.
    pub(super) fn time(&self) -> String {
        let newest = self.newest_s.and_then(|seconds| Timestamp::from_second(seconds).ok());
        newest.unwrap_or_else(|| self.door.control().now()).to_string()
    }

    /// Builds, tells how it goes, and leaves nothing but the image and its steps. Gives the failure, if it is one.
    pub async fn build(self, context: Reader) -> Option<Failure> {
        let outcome = self.make(context).await;
        let is_cut = self.cut.is_cancelled();
        self.leave_all().await;
        if !is_cut {
            self.keep_marks().await;
        }
        // A step that failed leaves those before it for the next try; a build that was cut off leaves nothing.
        if let Err(error) = self.door.control().end_build(&self.caller, &self.build, !is_cut).await {
            tracing::warn!(%error, "steps of a build are left until the next start");
        }
        let name = self.asked.tags.first().cloned().unwrap_or_default();
        let noted = match &outcome {
            Ok(id) => Ok(id.clone()),
            Err(Fault::Refused(failure)) => Err(failure.error.clone()),
            Err(Fault::Ran { message, .. }) => Err(control::Error::new(Code::Conflict, message)),
        };
        let subject = |id: &String| (id.clone(), name.clone());
        // What failed is told to the client below.
        let _ = note_as(self.door.app(), &self.caller, deed("build", "image", &name), noted, subject).await;
        match outcome {
            Ok(_) => None,
            Err(Fault::Refused(failure)) => {
                self.tell.fail(&told(&failure), None).await;
                Some(failure)
            }
            Err(Fault::Ran { code, message }) => {
                self.tell.fail(&message, Some(code)).await;
                Some(Failure::new(Code::Conflict, message))
            }
        }
    }

    async fn make(&self, context: Reader) -> std::result::Result<String, Fault> {
        let plan = self.plan(context).await?;
        let order =
            plan.file.plan(self.asked.target.as_deref(), &plan.globals).map_err(|error| wrong(&error))?;
        let plan = Plan { steps: plan.file.count(&order), ..plan };
        let mut at = 0;
        for step in &plan.file.globals {
            at += 1;
            self.tell.say(format!("Step {at}/{} : {}\n", plan.steps, step.text)).await;
        }
        let mut built: BTreeMap<usize, Built> = BTreeMap::new();
        for planned in &order {
            let stage = self.stage(&plan, planned, &mut at, &built).await?;
            built.insert(planned.stage, stage);
        }
        let last = order.last().map_or(0, |planned| planned.stage);
        let built = built.remove(&last).ok_or_else(|| Failure::new(Code::Internal, "no stage was built"))?;
        self.finish(&plan, built).await.map_err(Fault::from)
    }

    /// Reads the context and the Dockerfile in it.
    async fn plan(&self, context: Reader) -> Result<Plan> {
        let streams = self.door.app().streams();
        let context = tokio::select! {
            context = streams.source_archive(context, "") => context?,
            () = self.cut.cancelled() => return Err(self.check().err().unwrap_or_else(|| Failure::new(Code::Conflict, "cancelled"))),
        };
        let name = &self.asked.dockerfile;
        let text = context.read(name, DOCKERFILE_BYTES_MAX as u64).await?;
        let text = text.ok_or_else(|| {
            let message = format!("Cannot locate specified Dockerfile: {name:.200}");
            Failure::new(Code::Invalid, message).hint("name it by -f, with a path below the context")
        })?;
        let file = Dockerfile::read(&text).map_err(|error| wrong(&error))?;
        let globals = Globals::of(&file, &self.asked.args, arch()).map_err(|error| wrong(&error))?;
        let context = match context.read(".dockerignore", IGNORE_BYTES_MAX as u64).await? {
            None => context,
            Some(text) => {
                let ignore = Ignore::read(&text).map_err(|error| wrong(&error))?;
                if ignore.is_empty() { context } else { context.without(ignore).await? }
            }
        };
        Ok(Plan { file, globals, context, steps: 0 })
    }

    /// Gives the image its names, and tells its id.
    async fn finish(&self, plan: &Plan, built: Built) -> Result<String> {
        let built = self.conclude(built).await?;
        let Some(base) = &built.base else {
            return Err(Failure::new(Code::Invalid, "No image was generated. Is your Dockerfile empty?")
                .hint("an image has one file at least: COPY or ADD it"));
        };
        let unused = plan.file.unused(&self.asked.args);
        if !unused.is_empty() {
            let text = format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" "));
            self.tell.say(text).await;
        }
        self.check()?;
        let id = base.config_digest.clone();
        let mut names = vec![];
        for tag in &self.asked.tags {
            names.push(
                adopt(&self.door, &self.caller, "build", &base.content.digest, Some(tag.as_str())).await?,
            );
        }
        if names.is_empty() {
            adopt(&self.door, &self.caller, "build", &base.content.digest, None).await?;
        }
        self.tell.send_aux(&id).await;
        if self.asked.quiet {
            self.tell.send(json!({ "stream": format!("{id}\n") })).await;
        } else {
            self.tell.say(format!("Successfully built {}\n", short(&id))).await;
            for name in names.iter().filter_map(Local::tag) {
                self.tell.say(format!("Successfully tagged {name}\n")).await;
            }
        }
        Ok(id)
    }

    /// An image by its name: the one that is here, or a registry's.
    pub(super) async fn image(&self, name: &str) -> Result<Local> {
        if !self.asked.pull
            && let Ok(local) = image::found::find(&self.door, &self.caller, name)
        {
            return Ok(local);
        }
        let reference: Reference = image::found::parse(name)?;
        let login = self.logins.of(&reference);
        let pulled = image::fetch(&self.door, &self.caller, &reference, login, self.tell.lines());
        tokio::select! {
            pulled = pulled => pulled,
            () = self.cut.cancelled() => {
                self.check()?;
                Err(Failure::new(Code::Conflict, "cancelled"))
            }
        }
    }

    /// Runs a program, and gives its failure if it is one.
    pub(super) async fn run_program(
        &self,
        work: &StageWork<'_>,
        instance: &model::instance::Instance,
        shown: &str,
    ) -> std::result::Result<(), Fault> {
        match self.watch_program(instance).await? {
            Ended::With(0) => Ok(()),
            Ended::Cut => {
                Err(self.check().err().unwrap_or_else(|| Failure::new(Code::Conflict, "cancelled")).into())
            }
            Ended::With(code) => {
                let line = work.line;
                let message = format!(
                    "The command '{shown}' returned a non-zero code: {code} (line {line} of {})",
                    self.asked.dockerfile
                );
                Err(Fault::Ran { code, message })
            }
        }
    }
}

/// The host's architecture, as docker names it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An id as people are shown it.
pub fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..SHORT_DIGITS).unwrap_or(hex)
}
