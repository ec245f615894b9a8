//! A build from its context to its image.

use super::{
    asked::Asked,
    context::{Context, Files},
    room::Ended,
    stage::Built,
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
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
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
    /// The line that is worked on.
    line: AtomicU32,
    text: OnceLock<Vec<u8>>,
    /// The client's, for credentials and secrets.
    pub(super) session: Option<Arc<Session>>,
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
        let build = format!("{:032x}", rand::random::<u128>());
        let newest_s = asked.args.get(EPOCH).and_then(|text| text.parse().ok());
        let (rooms, marks, number) = (Mutex::default(), Mutex::default(), AtomicUsize::new(0));
        let (line, text) = (AtomicU32::new(0), OnceLock::new());
        Self {
            door,
            caller,
            asked,
            logins,
            tell,
            build,
            cut,
            newest_s,
            rooms,
            marks,
            number,
            line,
            text,
            session: None,
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

    /// As [`wrong`], with the line kept.
    pub(super) fn wrong(&self, error: &DockerfileError) -> Failure {
        self.at_line(error.line);
        wrong(error)
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

    /// Builds, tells how it goes, and leaves nothing but the image and its steps. Gives the image's id.
    ///
    /// # Errors
    /// Why there is none. It was told.
    pub async fn build(mut self, context: Context) -> std::result::Result<String, Failed> {
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
        let failure = match outcome {
            Ok(id) => return Ok(id),
            Err(Fault::Refused(failure)) => {
                self.tell.fail(&told(&failure), None).await;
                failure
            }
            Err(Fault::Ran { code, shown }) => {
                let message = match &self.tell {
                    Tell::Lines(_) => self.returned(&shown, code),
                    Tell::Steps(_) => did_not_complete(&shown, code),
                };
                self.tell.fail(&message, Some(code)).await;
                Failure::new(Code::Conflict, message)
            }
        };
        let line = self.line.load(Ordering::Relaxed);
        Err(Failed { failure, line, dockerfile: self.text.take().unwrap_or_default() })
    }

    /// In the classic builder's words.
    fn returned(&self, shown: &str, code: i32) -> String {
        let line = self.line.load(Ordering::Relaxed);
        let file = &self.asked.dockerfile;
        format!("The command '{shown}' returned a non-zero code: {code} (line {line} of {file})")
    }

    async fn make(&self, context: Context) -> std::result::Result<String, Fault> {
        let plan = self.plan(context).await?;
        let order = plan
            .file
            .plan(self.asked.target.as_deref(), &plan.globals)
            .map_err(|error| self.wrong(&error))?;
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
        self.at_line(0);
        let last = order.last().map_or(0, |planned| planned.stage);
        let built = built.remove(&last).ok_or_else(|| Failure::new(Code::Internal, "no stage was built"))?;
        self.finish(&plan, built).await.map_err(Fault::from)
    }

    /// Reads the Dockerfile, and finds the files that it is for.
    async fn plan(&self, context: Context) -> Result<Plan> {
        let (text, context) = self.read_context(context).await?;
        let file = Dockerfile::read(self.text.get_or_init(|| text)).map_err(|error| self.wrong(&error))?;
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
        self.tell.begin(|| "exporting to image".into()).await;
        let mut names = vec![];
        for tag in &self.asked.tags {
            names.push(
                adopt(&self.door, &self.caller, "build", &base.content.digest, Some(tag.as_str())).await?,
            );
        }
        self.tell.done(format!("writing image {id}")).await;
        for tag in &self.asked.tags {
            self.tell.done(format!("naming to {tag}")).await;
        }
        self.tell.end().await;
        if names.is_empty() && !self.asked.forgets {
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
