//! Bringing the pods of a workload to what its file asks for, so that somebody answers all the time.
//!
//! ```text
//!   make one that is missing ──► wait until it runs and is ready ──► take one that is not wanted any more out of what
//!            ▲                                                        its Services lead to, wait, delete it
//!            └────────────────────── as long as any is missing ◄──────┘
//! ```
//! Each step looks at what is there. Whoever is cut off in the middle is followed by whoever plays the file again.

use super::{DIGEST, PlayArgs, made_of, request, sequence};
use crate::cli::{
    failure::{Failure, Result},
    publish,
    session::Session,
    wait::{self, WaitArgs},
};
use api::{
    client::{Error, Verb},
    v1::types::{
        instance::{Instance, UpdateInstance},
        list::WaitQuery,
        port::{Port, UpdatePort},
    },
};
use model::{
    error::Code,
    instance::phase::Phase,
    kube::{Kind, Workload, pod::Pod, service::PODS},
    port::alias::Alias,
};
use std::time::{Duration, Instant};

/// How long a name may lead to a pod after it was taken out: twice what DNS answers are kept for.
const FORGET_PAUSE: Duration = Duration::from_secs(10);
/// How long what is under way to a pod may take to arrive after its Service's address stopped leading there.
const ARRIVE_PAUSE: Duration = Duration::from_secs(3);
/// Between two looks at a pod that is not ready.
const READY_PAUSE: Duration = Duration::from_millis(300);

/// Brings a workload about. Tells what was done in a word.
///
/// # Errors
/// As the server refuses, a pod that differs and may not be replaced, or one that does not become ready in time.
pub async fn settle(session: &Session, workload: &Workload, args: &PlayArgs) -> Result<&'static str> {
    let there = made_of(session, workload).await?;
    if let Some(sequence) = workload.sequence {
        return sequence::settle(session, workload, sequence, there, args).await;
    }
    // What somebody began to delete is none of those that are there.
    let (going, there): (Vec<_>, Vec<_>) = there.into_iter().partition(is_going);
    remove(session, &going, &WaitArgs { no_wait: false, ..args.wait.clone() }).await?;
    let (mut old, mut kept) = (vec![], vec![]);
    for instance in there {
        let wanted = workload.pods.iter().find(|pod| pod.name == instance.head.name);
        match wanted.filter(|pod| instance.head.labels.get(DIGEST) == Some(&pod.digest)) {
            Some(pod) => kept.push((instance, pod)),
            None => old.push(instance),
        }
    }
    if !old.is_empty() && is_alone(workload.kind) {
        if !args.replace {
            let message = format!("{} is there and differs from the file", workload.reference());
            return Err(Failure::new(Code::Conflict, message).hint("--replace makes it anew"));
        }
        // Its name, ports and volumes are needed for the one in its place.
        remove(session, &old, &WaitArgs { no_wait: false, ..args.wait.clone() }).await?;
        make(session, workload, &workload.pods[0], args).await?;
        return Ok("replaced");
    }
    for (instance, pod) in &kept {
        lead_names(session, instance, &request::aliases(pod)?).await?;
    }
    let is_there = |pod: &&Pod| kept.iter().any(|(instance, _)| instance.head.name == pod.name);
    let missing: Vec<&Pod> = workload.pods.iter().filter(|pod| !is_there(pod)).collect();
    let word = match (missing.is_empty(), old.is_empty(), kept.is_empty()) {
        (true, true, _) => "unchanged",
        (false, true, true) => "created",
        (false, false, _) => "replaced",
        _ => "scaled",
    };
    if workload.recreate {
        remove(session, &old, &WaitArgs { no_wait: false, ..args.wait.clone() }).await?;
        old.clear();
    }
    // One that a broken run before this left behind has to be ready as well before an old one may go.
    if !old.is_empty() {
        for (instance, _) in &kept {
            ready(session, instance, &args.wait).await?;
        }
    }
    // Copies that nobody makes room for come all at once, and are waited for together.
    let at_once = PlayArgs { wait: WaitArgs { no_wait: true, ..args.wait.clone() }, ..args.clone() };
    let mut made = vec![];
    for pod in missing {
        match old.pop() {
            Some(last) => {
                let instance = make(session, workload, pod, args).await?;
                ready(session, &instance, &args.wait).await?;
                retire(session, &mut vec![last], &args.wait).await?;
            }
            // A pod by itself has nobody who waits for it to be ready: it is seen to run.
            None if is_alone(workload.kind) => drop(make(session, workload, pod, args).await?),
            None => made.push(make(session, workload, pod, &at_once).await?),
        }
    }
    for instance in made.iter().filter(|_| !args.wait.no_wait) {
        ready(session, instance, &args.wait).await?;
    }
    retire(session, &mut old, &args.wait).await?;
    Ok(word)
}

/// Whether it is being deleted, or goes when it has ended.
pub(super) fn is_going(instance: &Instance) -> bool {
    instance.phase == Phase::Deleting || instance.remove_on_exit
}

/// Whether it is one pod with a name of its own, which cannot be there twice.
fn is_alone(kind: Kind) -> bool {
    matches!(kind, Kind::Pod | Kind::Job | Kind::CronJob)
}

/// Makes a pod and, unless it is not waited for, sees it run.
pub(super) async fn make(
    session: &Session,
    workload: &Workload,
    pod: &Pod,
    args: &PlayArgs,
) -> Result<Instance> {
    let wanted = request::request(pod, &workload.reference())?;
    let made = session.client.create::<Instance>(&wanted, &WaitQuery::default()).await;
    let made = match made {
        Err(error) if error.code() == Code::Taken => {
            let failure = Failure::from(error);
            let message = format!("{}: {}", workload.reference(), failure.message);
            let hint = format!(
                "what is called {} was not made of this file, or keeps a port that is needed",
                pod.name
            );
            return Err(Failure { message, ..failure }.hint(hint));
        }
        other => other?,
    };
    if args.wait.no_wait {
        return Ok(made);
    }
    let id = made.head.id.to_string();
    let instance = wait::settle::<Instance>(session, &id, &made.head.name, None, &args.wait).await?;
    if workload.kind == Kind::Pod && !instance.publish.is_empty() {
        publish::warn_of_closed(session, &instance).await?;
    }
    Ok(instance)
}

/// Waits until a pod runs and can be given work. One that has run to its end is done.
pub(super) async fn ready(session: &Session, instance: &Instance, args: &WaitArgs) -> Result {
    let (id, name) = (instance.head.id.to_string(), &instance.head.name);
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut line = wait::Line::new(session);
    loop {
        let seen: Instance = wait::settle(session, &id, name, None, args).await?;
        match (seen.phase, seen.ready) {
            (Phase::Running, None | Some(true)) | (Phase::Exited, _) => return Ok(()),
            _ if Instant::now() >= deadline => {
                let message = format!("{name} is not ready after {} s", args.timeout);
                return Err(Failure::new(Code::Timeout, message)
                    .hint(format!("`holm info {name}` and `holm events` tell why; what was there is kept")));
            }
            _ => line.tell(&format!("{name}: not ready yet")),
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
}

/// Takes pods out of the names that lead to them, lets those who know their addresses finish, and deletes them.
async fn retire(session: &Session, old: &mut Vec<Instance>, args: &WaitArgs) -> Result {
    let mut pause = Duration::ZERO;
    for instance in old.iter() {
        let port = instance.ports.first();
        let by_address = |alias: &Alias| alias.as_str().ends_with(PODS);
        let is_asked_for = port.is_some_and(|port| !port.aliases.iter().all(by_address));
        if lead_names(session, instance, &[]).await? {
            pause = pause.max(if is_asked_for { FORGET_PAUSE } else { ARRIVE_PAUSE });
        }
    }
    tokio::time::sleep(pause).await;
    // Whoever comes next may need what they hold.
    remove(session, old, &WaitArgs { no_wait: false, ..args.clone() }).await?;
    old.clear();
    Ok(())
}

/// Deletes pods, all at once. Those that run are asked to end first, with all that their hooks and grace periods say.
pub async fn remove(session: &Session, all: &[Instance], args: &WaitArgs) -> Result {
    for instance in all {
        let id = instance.head.id.to_string();
        let asked = match instance.phase {
            Phase::Running => ask_to_end(session, &id).await,
            Phase::Stopping if instance.remove_on_exit => Ok(()),
            _ => session.client.delete::<Instance>(&id, &WaitQuery::default()).await.map(drop),
        };
        match asked {
            Err(error) if error.code() != Code::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    if args.no_wait {
        return Ok(());
    }
    for instance in all {
        if matches!(instance.phase, Phase::Running | Phase::Stopping) {
            ended(session, instance, args).await?;
        }
        let (id, name) = (instance.head.id.to_string(), &instance.head.name);
        wait::leaves::<Instance>(session, &id, name, args, true).await?;
    }
    Ok(())
}

/// It goes when it has ended, whoever waits for that.
async fn ask_to_end(session: &Session, id: &str) -> std::result::Result<(), Error> {
    let goes = UpdateInstance { remove_on_exit: Some(true), ..UpdateInstance::default() };
    session.client.update::<Instance>(id, &goes, &WaitQuery::default()).await?;
    session.client.act(id, Verb::Stop, &WaitQuery::default()).await.map(drop)
}

/// Waits until a pod that was asked to end does not run any more, or is gone.
async fn ended(session: &Session, instance: &Instance, args: &WaitArgs) -> Result {
    let (id, name) = (instance.head.id.to_string(), &instance.head.name);
    let patience = args.timeout.saturating_add(u64::from(instance.grace_s));
    let deadline = Instant::now() + Duration::from_secs(patience);
    let mut line = wait::Line::new(session);
    loop {
        match session.client.get::<Instance>(&id).await {
            Err(error) if error.code() == Code::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(seen) if !matches!(seen.phase, Phase::Running | Phase::Stopping) => return Ok(()),
            Ok(_) if Instant::now() >= deadline => {
                let message = format!("{name} still runs {patience} s after it was asked to end");
                return Err(Failure::new(Code::Timeout, message)
                    .hint(format!("`holm stop --kill {name}` ends it at once; then play again")));
            }
            Ok(_) => line.tell(&format!("{name}: is asked to end")),
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
}

/// Gives an instance these names in its first network. Tells whether it had others.
pub(super) async fn lead_names(session: &Session, instance: &Instance, aliases: &[Alias]) -> Result<bool> {
    let Some(port) = instance.ports.first().filter(|port| port.aliases != aliases) else {
        return Ok(false);
    };
    let request = UpdatePort { aliases: Some(aliases.to_vec()), ..UpdatePort::default() };
    session.client.update::<Port>(&port.id.to_string(), &request, &WaitQuery::default()).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::kube::OBJECT;

    #[test]
    fn a_pod_of_a_file_is_known_by_its_labels() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: \
                    {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: \
                    {containers: [{name: web, image: web}]}\n";
        let plan = model::kube::plan(text, "default").unwrap();
        let workload = &plan.workloads[0];
        let all: Vec<_> =
            workload.pods.iter().map(|pod| request::request(pod, &workload.reference()).unwrap()).collect();
        assert_eq!(all.len(), 2);
        assert_ne!(all[0].name, all[1].name);
        for one in &all {
            assert_eq!(one.labels[OBJECT], "deployment/web");
            assert_eq!(one.labels[DIGEST], workload.pods[0].digest);
            assert_eq!(one.labels["app"], "web");
        }
    }
}
