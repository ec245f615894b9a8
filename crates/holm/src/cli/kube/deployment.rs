//! Deployments: a file says how many copies of what there are to be, the daemon makes and replaces them, and here is waited
//! until it has.

use super::{
    DIGEST, PlayArgs, made_of, request,
    roll::{READY_PAUSE, is_going},
    rollout,
};
use crate::cli::{
    completion,
    failure::{Failure, Result},
    noun::{self, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
    wait::{self, WaitArgs, Waited},
};
use api::v1::types::{
    deployment::{Autoscale, CreateDeployment, Deployment, TemplateRequest, UpdateDeployment},
    instance::{CreateInstance, Instance},
    list::{ListQuery, WaitQuery},
};
use model::{
    deployment::Kind,
    error::Code,
    kube::{self, Copies, Workload},
};
use std::time::{Duration, Instant};

/// How many copies there are to be.
#[derive(Debug, Clone, clap::Args)]
pub struct ScaleArgs {
    /// Name, as deployment/NAME or NAME
    #[arg(value_name = "NAME", add = completion::names("deployments"))]
    pub name: String,
    /// Copies that are wanted
    #[arg(long, value_name = "COUNT")]
    pub replicas: u32,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Whose copies are waited for.
#[derive(Debug, Clone, clap::Args)]
pub struct StatusArgs {
    /// Name, as deployment/NAME, deployment NAME or NAME
    #[arg(value_name = "NAME", required = true, num_args = 1..=2, add = completion::names("deployments"))]
    pub name: Vec<String>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

impl Shown for Deployment {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |d| Cell::text(d.reference())),
        wide("ID", |d| Cell::text(d.head.id)),
        column("READY", |d| Cell::text(format!("{}/{}", d.ready, d.replicas))),
        column("UP-TO-DATE", |d| Cell::text(d.current)),
        column("COPIES", |d| Cell::text(d.copies)),
        column("CPU", |d| Cell::maybe(d.autoscale.map(|rule| use_of(&rule, d.used_percent)))),
        column("FAULT", |d| Cell::maybe(d.fault.as_ref().map(|fault| &fault.message))),
        wide("REVISION", |d| Cell::text(&d.revision)),
        wide("PROJECT", |d| Cell::text(&d.head.project.name)),
        column("AGE", |d| Cell::Time(d.head.created_at)),
    ];

    fn name(&self) -> String {
        self.reference()
    }
}

/// Which use is wanted, which was seen, and within which bounds there are more or fewer copies for it.
fn use_of(rule: &Autoscale, used_percent: Option<u32>) -> String {
    let used = used_percent.map_or("?".to_string(), |percent| percent.to_string());
    format!("{used}%/{}% ({}-{})", rule.cpu_percent, rule.replicas_min, rule.replicas_max)
}

/// Lists what is watched over.
///
/// # Errors
/// As the server refuses.
pub async fn list(session: &Session, args: &ListArgs) -> Result {
    noun::list::<Deployment>(session, &args.query()).await
}

/// Asks for another number of copies.
///
/// # Errors
/// As the server refuses, or copies that are not ready in time.
pub async fn scale(session: &Session, args: &ScaleArgs) -> Result {
    let found = find(session, &args.name).await?;
    let change = UpdateDeployment { replicas: Some(args.replicas), ..UpdateDeployment::default() };
    let changed: Deployment = session
        .client
        .update::<Deployment>(&found.head.id.to_string(), &change, &WaitQuery::default())
        .await?;
    complete(session, &changed, &args.wait).await?;
    super::done(session, &changed.reference(), "scaled")
}

/// Waits until all copies are there and ready.
///
/// # Errors
/// Copies that cannot be had, or are not ready in time.
pub async fn status(session: &Session, args: &StatusArgs) -> Result {
    let names = rollout::references(&args.name);
    let [name] = names.as_slice() else {
        return Err(Failure::usage("one is waited for at a time").hint("name it deployment/NAME"));
    };
    let found = find(session, name).await?;
    complete(session, &found, &args.wait).await?;
    let seen: Deployment = session.client.get(&found.head.id.to_string()).await?;
    super::done(session, &seen.reference(), &format!("has {} of {} copies ready", seen.ready, seen.replicas))
}

/// The kind that a word means.
pub(super) fn kind_of(word: &str) -> Option<Kind> {
    match word {
        "deployment" | "deployments" | "deploy" | "deployment.apps" => Some(Kind::Deployment),
        "daemonset" | "daemonsets" | "ds" | "daemonset.apps" => Some(Kind::DaemonSet),
        _ => None,
    }
}

/// The deployment that a user means, with its kind or without.
pub(super) async fn find(session: &Session, text: &str) -> Result<Deployment> {
    let (kind, name) = match text.split_once('/').map(|(word, name)| (word, kind_of(word), name)) {
        None => (None, text),
        Some((_, Some(kind), name)) => (Some(kind), name),
        Some((other, None, _)) => {
            let message = format!("{other}s have no copies that are watched over");
            return Err(Failure::usage(message).hint("name it deployment/NAME or daemonset/NAME"));
        }
    };
    let missing = || {
        Failure::new(Code::NotFound, format!("no deployment {name:?} in this project"))
            .hint("`holm kube get` shows what is there")
    };
    match session.client.get::<Deployment>(name).await {
        Ok(found) if kind.is_none_or(|kind| kind == found.kind) => Ok(found),
        Ok(_) => Err(missing()),
        Err(error) if error.code() == Code::NotFound => Err(missing()),
        Err(error) => Err(error.into()),
    }
}

/// Brings one about. Tells what was done in a word.
///
/// # Errors
/// As the server refuses, or copies that do not become ready in time: those of before stay then.
pub async fn settle(
    session: &Session,
    workload: &Workload,
    copies: &Copies,
    args: &PlayArgs,
) -> Result<&'static str> {
    let mut there = made_of(session, workload).await?;
    there.retain(|instance| !is_going(instance));
    let known = known(session, workload).await?;
    let wanted = put(session, workload, copies, known.as_ref()).await?;
    let is_kept = |it: &&Instance| it.head.labels.get(DIGEST) == Some(&wanted.revision);
    let kept = there.iter().filter(is_kept).count();
    complete(session, &wanted, &args.wait).await?;
    Ok(match (kept, there.len() - kept) {
        (0, 0) if known.is_none() || wanted.replicas > 0 => "created",
        (_, old) if old > 0 => "replaced",
        (kept, _) if kept == wanted.replicas as usize => "unchanged",
        _ => "scaled",
    })
}

/// The deployment that was made of a workload before.
async fn known(session: &Session, workload: &Workload) -> Result<Option<Deployment>> {
    let query = ListQuery { name: Some(workload.name.clone()), ..ListQuery::default() };
    let all: Vec<Deployment> = session.client.list_all(&query).await?;
    Ok(all.into_iter().find(|it| it.reference() == workload.reference()))
}

async fn put(
    session: &Session,
    workload: &Workload,
    copies: &Copies,
    known: Option<&Deployment>,
) -> Result<Deployment> {
    let instance = request::request(&copies.template, &workload.reference())?;
    let template = TemplateRequest {
        instance: CreateInstance { name: String::new(), ..instance },
        revision: copies.template.digest.clone(),
        recreate: workload.recreate,
    };
    if let Some(known) = known {
        let change = UpdateDeployment {
            replicas: copies.replicas,
            template: Some(template),
            autoscale: Some(copies.autoscale.map(Into::into)),
            ..UpdateDeployment::default()
        };
        let id = known.head.id.to_string();
        return Ok(session.client.update::<Deployment>(&id, &change, &WaitQuery::default()).await?);
    }
    let new = CreateDeployment {
        name: workload.name.clone(),
        description: String::new(),
        labels: [(super::OBJECT.to_string(), workload.reference())].into(),
        kind: if workload.kind == kube::Kind::DaemonSet { Kind::DaemonSet } else { Kind::Deployment },
        replicas: copies.replicas.unwrap_or(1),
        template,
        autoscale: copies.autoscale.map(Into::into),
    };
    Ok(session.client.create::<Deployment>(&new, &WaitQuery::default()).await?)
}

/// Stops watching over what was made of a workload, so that its copies can be taken down.
///
/// # Errors
/// As the server refuses.
pub async fn forget(session: &Session, workload: &Workload) -> Result {
    let Some(known) = known(session, workload).await? else { return Ok(()) };
    match session.client.delete::<Deployment>(&known.head.id.to_string(), &WaitQuery::default()).await {
        Err(error) if error.code() != Code::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Waits until there are as many copies as are wanted, all of the revision that is wanted and ready, and no others.
async fn complete(session: &Session, wanted: &Deployment, args: &WaitArgs) -> Result {
    if args.no_wait {
        return Ok(());
    }
    let (id, name) = (wanted.head.id.to_string(), wanted.reference());
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut line = wait::Line::new(session);
    loop {
        let seen: Deployment = session.client.get(&id).await?;
        if seen.is_complete() {
            return Ok(());
        }
        if let Some(fault) = seen.fault.as_ref().filter(|_| seen.is_observed) {
            let message =
                format!("{name} has {} of {} copies: {}", seen.current, seen.replicas, fault.message);
            let hint = match fault.hint.as_str() {
                "" => "holm goes on trying; `holm kube get` shows how far it is".to_string(),
                hint => format!("{hint}; holm goes on trying"),
            };
            return Err(Failure::new(fault.code, message).hint(hint));
        }
        if let Some(failure) = failed_copy(session, &seen).await? {
            return Err(failure);
        }
        if Instant::now() >= deadline {
            let message = format!(
                "{name} has {} of {} copies ready after {} s",
                seen.ready, seen.replicas, args.timeout
            );
            return Err(Failure::new(Code::Timeout, message).hint(
                "`holm info` and `holm events` tell why; what was there stays until the new copies are ready",
            ));
        }
        line.tell(&format!("{name}: {} of {} copies ready", seen.ready, seen.replicas));
        tokio::select! {
            () = tokio::time::sleep(READY_PAUSE) => {}
            _ = tokio::signal::ctrl_c() => {
                line.clear();
                session.say(format!("no longer waiting: {name} goes on by itself (`holm kube get`)"));
                return Err(Failure::silent(wait::INTERRUPTED));
            }
        }
    }
}

/// Why a copy that is wanted cannot be had, if one is in such a state.
async fn failed_copy(session: &Session, deployment: &Deployment) -> Result<Option<Failure>> {
    let label = Some(format!("{}={}", super::OBJECT, deployment.reference()));
    let all: Vec<Instance> = session.client.list_all(&ListQuery { label, ..ListQuery::default() }).await?;
    let of_this = |it: &&Instance| it.head.labels.get(DIGEST) == Some(&deployment.revision);
    Ok(all.iter().filter(of_this).find_map(Waited::failure))
}
