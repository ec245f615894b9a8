//! Programs that run beside a container's own: made, started, resized and looked at in calls of their own, as docker has it.
//!
//! What was asked for waits in memory for its start, and how it ended is told for a while. Both are bounded, and both end
//! with the daemon: so do the programs' connections.

use super::{
    container,
    door::Door,
    hijack::{self, Hijack, Wanted},
    multiplex::Form,
    query::{Json as Body, Query},
    refusal,
};
use crate::routing::{Router, get, post};
use crate::{
    app::Asker,
    error::{Failure, Result},
    streams::{Exec, Program, Reader, Session},
    v1::audit::{deed, known, note_as},
};
use axum::{
    Json,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use control::Caller;
use jiff::{SignedDuration, Timestamp};
use model::{
    error::Code,
    id::{InstanceId, ProjectId},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Most programs that are remembered at a time.
const EXECS_MAX: usize = 1024;
/// Most of these of one project.
const EXECS_OF_PROJECT: usize = EXECS_MAX / 4;
/// How long one is remembered that was not started, or has ended.
const MEMORY: SignedDuration = SignedDuration::from_mins(5);
/// Most arguments of a program.
const ARGUMENTS_MAX: usize = 4_096;

/// What is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NewExec {
    user: Option<String>,
    tty: bool,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    detach_keys: Option<String>,
    env: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    privileged: bool,
    console_size: Option<(u16, u16)>,
}

/// How it is started.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct StartExec {
    detach: bool,
    tty: bool,
    console_size: Option<(u16, u16)>,
}

/// A program that is remembered.
#[derive(Clone)]
struct Kept {
    instance: InstanceId,
    project: ProjectId,
    exec: Exec,
    asked: NewExec,
    stage: Stage,
    touched_at: Timestamp,
}

#[derive(Clone)]
enum Stage {
    Waiting,
    Starting,
    Running(Arc<dyn Program>),
    Ended(i32),
}

/// All that are remembered.
#[derive(Default)]
pub struct Execs(Mutex<HashMap<String, Kept>>);

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        // Nothing can panic while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, kept: Kept, now: Timestamp) -> Result<String> {
        let mut all = self.lock();
        all.retain(|_, one| {
            matches!(one.stage, Stage::Starting | Stage::Running(_))
                || now.duration_since(one.touched_at) < MEMORY
        });
        let is_own = |one: &Kept| one.project == kept.project;
        let mut own = all.values().filter(|one| is_own(one)).count();
        if all.len() >= EXECS_MAX || own >= EXECS_OF_PROJECT {
            // How the oldest ended is forgotten first: a loop runs more of them than anybody asks about.
            let has_ended = |one: &Kept| is_own(one) && matches!(one.stage, Stage::Ended(_));
            let ended = all.iter().filter(|(_, one)| has_ended(one));
            let oldest = ended.min_by_key(|(_, one)| one.touched_at).map(|(id, _)| id.clone());
            own -= usize::from(oldest.is_some_and(|oldest| all.remove(&oldest).is_some()));
        }
        if all.len() >= EXECS_MAX || own >= EXECS_OF_PROJECT {
            let message = format!("{own} programs of this project wait or run");
            return Err(Failure::new(Code::TooMany, message).hint("try again in a while"));
        }
        let id = hex::encode(rand::random::<[u8; 32]>());
        all.insert(id.clone(), kept);
        Ok(id)
    }

    fn get(&self, id: &str) -> Result<Kept> {
        self.lock().get(id).cloned().ok_or_else(|| no_exec(id))
    }

    /// Takes one that waits, so that it is started once.
    fn begin(&self, id: &str) -> Result<Kept> {
        let mut all = self.lock();
        let kept = all.get_mut(id).ok_or_else(|| no_exec(id))?;
        match kept.stage {
            Stage::Waiting => {
                kept.stage = Stage::Starting;
                Ok(kept.clone())
            }
            Stage::Starting | Stage::Running(_) => {
                Err(refusal::conflict(format!("exec command {id} is already running")))
            }
            Stage::Ended(_) => Err(refusal::conflict(format!("exec command {id} has already run"))),
        }
    }

    fn set(&self, id: &str, stage: Stage, now: Timestamp) {
        if let Some(kept) = self.lock().get_mut(id) {
            (kept.stage, kept.touched_at) = (stage, now);
        }
    }

    /// Ids of those that run beside a container's own program.
    pub fn running(&self, instance: InstanceId) -> Vec<String> {
        let all = self.lock();
        let runs = |kept: &Kept| kept.instance == instance && matches!(kept.stage, Stage::Running(_));
        all.iter().filter(|(_, kept)| runs(kept)).map(|(id, _)| id.clone()).collect()
    }
}

fn no_exec(id: &str) -> Failure {
    Failure::new(Code::NotFound, format!("No such exec instance: {id}"))
}

/// Adds the routes.
pub fn routes(routes: Router<Door>) -> Router<Door> {
    routes
        .route("/containers/{name}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    Body(asked): Body<NewExec>,
) -> Result<Response> {
    let found = container::found::find(&door, &caller, &name)?;
    found.require_running()?;
    if asked.privileged {
        return Err(refusal::not_honoured(
            "Privileged",
            "a program has the powers of its container and no more",
        ));
    }
    let argv = asked.cmd.clone().unwrap_or_default();
    if argv.first().is_none_or(String::is_empty) {
        return Err(Failure::new(Code::Invalid, "No exec command specified"));
    }
    if argv.len() > ARGUMENTS_MAX {
        return Err(Failure::new(
            Code::TooLarge,
            format!("a program gets at most {ARGUMENTS_MAX} arguments"),
        ));
    }
    let env = container::environment::read(asked.env.as_deref().unwrap_or_default())?;
    if let Some(gone) = env.removed.first() {
        return Err(refusal::not_honoured(
            &format!("taking {gone} out of the environment"),
            "give it an empty value",
        ));
    }
    if argv.iter().any(|text| text.contains('\0')) {
        return Err(Failure::new(Code::Invalid, "an argument holds a NUL byte"));
    }
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let exec = Exec {
        container: None,
        argv,
        env: env.set.into_iter().collect(),
        cwd: given(&asked.working_dir),
        user: given(&asked.user),
        tty: asked.tty,
        stdin: asked.attach_stdin,
        size: asked.console_size.filter(|size| *size != (0, 0)),
    };
    let now = door.control().now();
    let kept = Kept {
        instance: found.id(),
        project: found.instance().meta.project,
        exec,
        asked,
        stage: Stage::Waiting,
        touched_at: now,
    };
    let id = door.execs().add(kept, now)?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id }))).into_response())
}

/// Marks a program as ended, also when nobody is left to see how.
struct Ending {
    door: Door,
    id: String,
}

impl Ending {
    /// Exit code of a program that was lost sight of: as after SIGKILL.
    const LOST: i32 = 137;

    fn tell(self, code: Option<i32>) {
        self.door.execs().set(&self.id, Stage::Ended(code.unwrap_or(Self::LOST)), self.door.control().now());
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let is_open = matches!(
            self.door.execs().get(&self.id).map(|kept| kept.stage),
            Ok(Stage::Running(_) | Stage::Starting)
        );
        if is_open {
            self.door.execs().set(&self.id, Stage::Ended(Self::LOST), self.door.control().now());
        }
    }
}

async fn start(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let bytes = crate::request::read_body(body).await?;
    let how: StartExec = if bytes.is_empty() {
        StartExec::default()
    } else {
        crate::request::read_json_body(&parts.headers, &bytes)?
    };
    let mut request = Request::from_parts(parts, axum::body::Body::empty());
    let found = of_caller(&door, &caller, &id)?;
    let kept = door.execs().begin(&id)?;
    let ending = Ending { door: door.clone(), id: id.clone() };
    found.require_running()?;
    let mut exec = kept.exec.clone();
    exec.tty = exec.tty || how.tty;
    exec.stdin = exec.stdin && !how.detach;
    exec.size = how.console_size.filter(|size| *size != (0, 0)).or(exec.size);
    let hijack = Hijack::of(&mut request, Form::of(exec.tty));
    let (instance, argv) = (found.instance(), exec.argv.clone());
    let outcome = door.app().streams().exec(instance, exec).await;
    let subject = known(instance.meta.id, &instance.meta.name);
    let session = match note_as(door.app(), &caller, deed("exec", "instance", &id), outcome, subject).await {
        Ok(session) => session,
        Err(failure) => {
            let (code, text) = not_run(&failure, &argv[0]);
            ending.tell(Some(code));
            if how.detach {
                return Err(Failure::new(Code::Invalid, text));
            }
            return hijack.refuse(&door, &caller, &text);
        }
    };
    door.execs().set(&id, Stage::Running(Arc::clone(&session.program)), door.control().now());
    if how.detach {
        door.app().tasks().spawn(async move {
            let Session { stdout, stderr, program, .. } = session;
            // Nobody reads its outputs, and still it must not wait for a reader.
            let (_, _, code) = tokio::join!(discard(stdout), discard(stderr), program.wait());
            ending.tell(code.ok());
        });
        return Ok(StatusCode::OK.into_response());
    }
    let (stdout, stderr) = (kept.asked.attach_stdout, kept.asked.attach_stderr);
    let wanted = Wanted { before: vec![], stdout, stderr, is_exec: true };
    hijack.join(&door, &caller, session, wanted, move |code| ending.tell(code))
}

async fn discard(reader: Option<Reader>) {
    if let Some(mut reader) = reader {
        let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
    }
}

/// Exit code and text of a program that could not be run.
fn not_run(failure: &Failure, program: &str) -> (i32, String) {
    let begin = "OCI runtime exec failed: exec failed: unable to start container process";
    match (failure.error.code, failure.error.field.as_deref()) {
        (Code::NotFound, Some("argv")) => {
            (127, format!("{begin}: exec: \"{program}\": executable file not found in $PATH"))
        }
        (Code::Forbidden, Some("argv")) => (126, format!("{begin}: exec: \"{program}\": permission denied")),
        _ => (126, format!("{begin}: {}", failure.error.message)),
    }
}

/// The container that a program is run in, whose project decides who may touch the program.
fn of_caller(door: &Door, caller: &Caller, id: &str) -> Result<container::found::Found> {
    let kept = door.execs().get(id)?;
    container::found::by_id(door, caller, kept.instance).map_err(|_| no_exec(id))
}

async fn resize(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(id): Path<String>,
    query: Query,
) -> Result<StatusCode> {
    let (rows, columns) = hijack::size(&query)?;
    of_caller(&door, &caller, &id)?;
    match door.execs().get(&id)?.stage {
        Stage::Running(program) => program.resize(rows, columns).await?,
        // A client sends the size while the program is being started, and again when it is refused.
        Stage::Starting => return Err(refusal::conflict(format!("exec {id} is being started"))),
        Stage::Waiting | Stage::Ended(_) => {
            return Err(refusal::conflict(format!("cannot resize exec {id}: it is not running")));
        }
    }
    Ok(StatusCode::OK)
}

async fn inspect(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let container = of_caller(&door, &caller, &id)?;
    let kept = door.execs().get(&id)?;
    let (program, arguments) =
        kept.exec.argv.split_first().map_or((String::new(), vec![]), |(p, a)| (p.clone(), a.to_vec()));
    let code = match kept.stage {
        Stage::Ended(code) => Some(code),
        _ => None,
    };
    Ok(Json(json!({
        "ID": id,
        "Running": matches!(kept.stage, Stage::Running(_)),
        "ExitCode": code,
        "ProcessConfig": {
            "tty": kept.exec.tty,
            "entrypoint": program,
            "arguments": arguments,
            "privileged": false,
            "user": kept.exec.user.clone().unwrap_or_default(),
        },
        "OpenStdin": kept.asked.attach_stdin,
        "OpenStdout": kept.asked.attach_stdout,
        "OpenStderr": kept.asked.attach_stderr,
        "CanRemove": code.is_some(),
        "ContainerID": super::id::of(container.id().0),
        "DetachKeys": kept.asked.detach_keys.clone().unwrap_or_default(),
        "Pid": 0,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(project: u8, at: Timestamp) -> Kept {
        Kept {
            instance: InstanceId::from_random([1; 16]),
            project: ProjectId::from_random([project; 16]),
            exec: Exec {
                container: None,
                argv: vec!["true".into()],
                env: Default::default(),
                cwd: None,
                user: None,
                tty: false,
                stdin: false,
                size: None,
            },
            asked: NewExec::default(),
            stage: Stage::Waiting,
            touched_at: at,
        }
    }

    #[test]
    fn a_loop_of_programs_is_never_refused_and_no_project_keeps_others_from_theirs() {
        let (execs, mut now) = (Execs::default(), Timestamp::UNIX_EPOCH);
        let mut first = None;
        for _ in 0..2 * EXECS_OF_PROJECT {
            now += SignedDuration::from_millis(1);
            let id = execs.add(kept(1, now), now).unwrap();
            execs.set(&id, Stage::Ended(0), now);
            first.get_or_insert(id);
        }
        assert_eq!(execs.lock().len(), EXECS_OF_PROJECT);
        assert!(execs.get(&first.unwrap()).is_err(), "the oldest is forgotten");
        for _ in 0..EXECS_OF_PROJECT {
            execs.add(kept(1, now), now).unwrap();
        }
        let refused = execs.add(kept(1, now), now).unwrap_err();
        assert!(refused.error.message.contains(&EXECS_OF_PROJECT.to_string()), "{}", refused.error.message);
        execs.add(kept(2, now), now).unwrap();
    }
}
