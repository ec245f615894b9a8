//! A build from its context to its image.

use super::{
    asked::Asked,
    context::{Context, Files},
    room::Ended,
    side::{Once, Shared},
    stage::{Base, Built},
    tell::Tell,
};
use crate::{
    docker::{
        buildkit::Session,
        door::Door,
        frame::told,
        image::{self, Logins, adopt, found::Local},
    },
    error::{Failure, Result},
    v1::audit::{deed, note_as},
};
use control::{Caller, image::NewStep};
use futures::FutureExt;
use jiff::Timestamp;
use model::{
    dockerfile::{
        Dockerfile, DockerfileError,
        scope::{EPOCH, Globals},
    },
    error::Code,
    id::InstanceId,
    image_reference::Reference,
};
use serde_json::json;
use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicU32, AtomicUsize, Ordering},
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
        /// The program and its arguments.
        shown: String,
    },
}

/// A build that ended without an image.
pub struct Failed {
    /// Why.
    pub failure: Failure,
    /// Line of the Dockerfile, from 1; 0 where none is meant.
    pub line: u32,
    /// The Dockerfile, if it was found.
    pub dockerfile: Vec<u8>,
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

/// A build that goes on, or one of its stages: these share all but where they are.
pub struct Builder {
    pub(super) door: Door,
    pub(super) caller: Caller,
    pub(super) asked: Arc<Asked>,
    logins: Arc<Logins>,
    pub(super) tell: Tell,
    /// Its id, in hex.
    pub(super) build: Arc<str>,
    /// Cancelled when nobody hears it any more, or another stage has failed.
    pub(super) cut: CancellationToken,
    /// No time in the image is later, in seconds since 1970.
    pub(super) newest_s: Option<i64>,
    /// The line that is worked on.
    line: AtomicU32,
    notes: Arc<Notes>,
    /// What its stages share.
    pub(super) shared: Arc<Shared>,
    /// The client's, for credentials and secrets.
    pub(super) session: Option<Arc<Session>>,
}

/// What is known of a build.
#[derive(Default)]
struct Notes {
    rooms: Mutex<Vec<InstanceId>>,
    /// Steps that changed no files, kept together when the build ends.
    marks: Mutex<Vec<NewStep>>,
    /// Images by the names that they were asked for by.
    images: Once<Local>,
    number: AtomicUsize,
    /// Steps that were told.
    told: AtomicUsize,
    text: OnceLock<Vec<u8>>,
}

/// What all stages of a build share.
pub(super) struct Plan {
    pub file: Dockerfile,
    pub globals: Globals,
    pub context: Files,
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
        let build = format!("{:032x}", rand::random::<u128>()).into();
        let newest_s = asked.args.get(EPOCH).and_then(|text| text.parse().ok());
        let (asked, logins, line) = (Arc::new(asked), Arc::new(logins), AtomicU32::new(0));
        let (notes, shared) = (Arc::default(), Arc::default());
        Self { door, caller, asked, logins, tell, build, cut, newest_s, line, notes, shared, session: None }
    }

    /// The same build, for what goes on beside the rest of it until `cut`.
    pub(super) fn branch(&self, cut: CancellationToken) -> Self {
        Self {
            door: self.door.clone(),
            caller: self.caller.clone(),
            asked: Arc::clone(&self.asked),
            logins: Arc::clone(&self.logins),
            tell: self.tell.beside(),
            build: Arc::clone(&self.build),
            cut,
            newest_s: self.newest_s,
            line: AtomicU32::new(0),
            notes: Arc::clone(&self.notes),
            shared: Arc::clone(&self.shared),
            session: self.session.clone(),
        }
    }

    /// The same with a session of the client.
    #[must_use]
    pub fn of_session(self, session: Arc<Session>) -> Self {
        Self { session: Some(session), ..self }
    }

    /// A line of the Dockerfile is worked on from now.
    pub(super) fn at_line(&self, line: u32) {
        self.line.store(line, Ordering::Relaxed);
    }

    /// The line that is worked on.
    pub(super) fn line(&self) -> u32 {
        self.line.load(Ordering::Relaxed)
    }

    /// As [`wrong`], with the line kept.
    pub(super) fn wrong(&self, error: &DockerfileError) -> Failure {
        self.at_line(error.line);
        wrong(error)
    }

    pub(super) fn next_number(&self) -> usize {
        self.notes.number.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells a step to who reads lines.
    pub(super) async fn tell_step(&self, steps: usize, text: &str) {
        let at = self.notes.told.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell.say(format!("Step {at}/{steps} : {text}\n")).await;
    }

    pub(super) fn note_room(&self, id: InstanceId) {
        self.notes.rooms.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    pub(super) fn note_mark(&self, mark: NewStep) {
        let mut marks = self.notes.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() < MARKS_MAX {
            marks.push(mark);
        }
    }

    async fn keep_marks(&self) {
        let marks = std::mem::take(&mut *self.notes.marks.lock().unwrap_or_else(PoisonError::into_inner));
        if !marks.is_empty()
            && let Err(error) = self.door.control().keep_steps(&self.caller, &marks).await
        {
            tracing::warn!(%error, "steps of a build are not kept for the next one");
        }
    }

    pub(super) fn rooms(&self) -> Vec<InstanceId> {
        self.notes.rooms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The time that is written into the image.
    pub(super) fn time(&self) -> String {
        let newest = self.newest_s.and_then(|seconds| Timestamp::from_second(seconds).ok());
        newest.unwrap_or_else(|| self.door.control().now()).to_string()
    }

    /// Builds, tells how it goes, and leaves nothing but the image and its steps. Gives the image's id.
    ///
    /// # Errors
    /// Why there is none. It was told.
    pub async fn build(self, context: Context) -> std::result::Result<String, Failed> {
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
            Err(Fault::Ran { code, shown }) => {
                Err(control::Error::new(Code::Conflict, self.returned(shown, *code)))
            }
        };
        let subject = |id: &String| (id.clone(), name.clone());
        // What failed is told to the client below.
        let _ = note_as(self.door.app(), &self.caller, deed("build", "image", &name), noted, subject).await;
        let fault = match outcome {
            Ok(id) => return Ok(id),
            Err(fault) => fault,
        };
        let (message, code) = self.words(&fault);
        self.tell.fail(&message, code).await;
        let failure = match fault {
            Fault::Refused(failure) => failure,
            Fault::Ran { .. } => Failure::new(Code::Conflict, message),
        };
        let dockerfile = self.notes.text.get().cloned().unwrap_or_default();
        Err(Failed { failure, line: self.line(), dockerfile })
    }

    /// What is told of a fault, and the exit code if it is a program's.
    pub(super) fn words(&self, fault: &Fault) -> (String, Option<i32>) {
        match fault {
            Fault::Refused(failure) => (told(failure), None),
            Fault::Ran { code, shown } if self.tell.is_by_steps() => {
                (did_not_complete(shown, *code), Some(*code))
            }
            Fault::Ran { code, shown } => (self.returned(shown, *code), Some(*code)),
        }
    }

    /// In the classic builder's words.
    fn returned(&self, shown: &str, code: i32) -> String {
        let line = self.line();
        let file = &self.asked.dockerfile;
        format!("The command '{shown}' returned a non-zero code: {code} (line {line} of {file})")
    }

    async fn make(&self, context: Context) -> std::result::Result<String, Fault> {
        let plan = self.plan(context).await?;
        let order = plan
            .file
            .plan(self.asked.target.as_deref(), &plan.globals, &|name| self.asked.given.get(name).is_some())
            .map_err(|error| self.wrong(&error))?;
        let plan = Plan { steps: plan.file.count(&order), ..plan };
        for step in &plan.file.globals {
            self.tell_step(plan.steps, &step.text).await;
        }
        let built = self.stages(&plan, &order).boxed().await?;
        self.at_line(0);
        self.finish(&plan, built).await.map_err(Fault::from)
    }

    /// Reads the Dockerfile, and finds the files that it is for.
    async fn plan(&self, context: Context) -> Result<Plan> {
        for warning in &self.asked.warnings {
            self.tell.warn(warning).await;
        }
        let (text, context) = self.read_context(context).await?;
        let file =
            Dockerfile::read(self.notes.text.get_or_init(|| text)).map_err(|error| self.wrong(&error))?;
        let globals = Globals::of(&file, &self.asked.args, arch()).map_err(|error| self.wrong(&error))?;
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
        self.export(base).boxed().await?;
        let names = if self.asked.forgets { vec![] } else { self.name_image(base).await? };
        self.push_all(base).boxed().await?;
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

    /// Makes what was built an image of the project.
    async fn name_image(&self, base: &Base) -> Result<Vec<Local>> {
        self.tell.begin(|| "exporting to image".into()).await;
        let digest = &base.content.digest;
        let mut names = vec![];
        for tag in &self.asked.tags {
            names.push(adopt(&self.door, &self.caller, "build", digest, Some(tag.as_str())).await?);
        }
        self.tell.done(format!("writing image {}", base.config_digest)).await;
        for tag in &self.asked.tags {
            self.tell.done(format!("naming to {tag}")).await;
        }
        self.tell.end().await;
        if names.is_empty() {
            adopt(&self.door, &self.caller, "build", digest, None).await?;
        }
        Ok(names)
    }

    /// An image by its name: the one that is here, or a registry's. It is found once for all of the build.
    pub(super) async fn image(&self, name: &str) -> Result<Local> {
        let cell = self.notes.images.cell(name);
        let found = cell.get_or_try_init(|| async {
            let full = image::found::parse(name).map_or_else(|_| name.to_string(), |full| full.to_string());
            self.tell.begin(|| format!("[internal] load metadata for {full}")).await;
            let found = self.find_image(name).await?;
            self.tell.end().await;
            Ok::<_, Failure>(found)
        });
        self.unless_cut(async { found.await.cloned() }).await
    }

    async fn find_image(&self, name: &str) -> Result<Local> {
        if !self.asked.pull
            && let Ok(local) = image::found::find(&self.door, &self.caller, name)
        {
            return Ok(local);
        }
        let reference: Reference = image::found::parse(name)?;
        let login = match (self.logins.of(&reference), &self.session) {
            (None, Some(session)) => self.unless_cut(session.login(&reference)).await?,
            (login, _) => login,
        };
        self.unless_cut(image::fetch(&self.door, &self.caller, &reference, login, self.tell.lines())).await
    }

    /// Runs a program, and gives its failure if it is one.
    pub(super) async fn run_program(
        &self,
        instance: &model::instance::Instance,
        shown: &str,
    ) -> std::result::Result<(), Fault> {
        match self.watch_program(instance).await? {
            Ended::With(0) => Ok(()),
            Ended::Cut => {
                Err(self.check().err().unwrap_or_else(|| Failure::new(Code::Conflict, "cancelled")).into())
            }
            Ended::With(code) => Err(Fault::Ran { code, shown: shown.to_string() }),
        }
    }
}

/// In BuildKit's words.
fn did_not_complete(shown: &str, code: i32) -> String {
    format!("process {shown:?} did not complete successfully: exit code: {code}")
}

/// The host's architecture, as docker names it.
pub fn arch() -> &'static str {
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
