//! Bringing a pod, a Job or a CronJob to what its file asks for, and the steps that StatefulSets have in common with them.
//!
//! Each step looks at what is there. Whoever is cut off in the middle is followed by whoever plays the file again.

use super::{DIGEST, PlayArgs, deployment, made_of, request, sequence};
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
    kube::{Kind, Workload, pod::Pod},
    port::alias::Alias,
};
use std::time::{Duration, Instant};

/// Between two looks at a pod that is not ready.
pub(super) const READY_PAUSE: Duration = Duration::from_millis(300);

/// Brings a workload about, whatever it is. Tells what was done in a word.
///
/// # Errors
/// As the server refuses, a pod that differs and may not be replaced, or one that does not become ready in time.
pub async fn settle(session: &Session, workload: &Workload, args: &PlayArgs) -> Result<&'static str> {
    if let Some(copies) = &workload.copies {
        return deployment::settle(session, workload, copies, args).await;
    }
    let there = made_of(session, workload).await?;
    if let Some(sequence) = workload.sequence {
        return sequence::settle(session, workload, sequence, there, args).await;
    }
    let to_its_end = WaitArgs { no_wait: false, ..args.wait.clone() };
    // What somebody began to delete is none of those that are there.
    let (going, there): (Vec<_>, Vec<_>) = there.into_iter().partition(is_going);
    remove(session, &going, &to_its_end).await?;
    let pod = &workload.pods[0];
    let is_kept = |it: &Instance| it.head.name == pod.name && it.head.labels.get(DIGEST) == Some(&pod.digest);
    let (kept, old): (Vec<_>, Vec<_>) = there.into_iter().partition(is_kept);
    if !old.is_empty() {
        if !args.replace {
            let message = format!("{} is there and differs from the file", workload.reference());
            return Err(Failure::new(Code::Conflict, message).hint("--replace makes it anew"));
        }
        // Its name, ports and volumes are needed for the one in its place.
        remove(session, &old, &to_its_end).await?;
        make(session, workload, pod, args).await?;
        return Ok("replaced");
    }
    match kept.first() {
        Some(instance) => {
            lead_names(session, instance, &request::aliases(pod)?).await?;
            Ok("unchanged")
        }
        None => {
            make(session, workload, pod, args).await?;
            Ok("created")
        }
    }
}

/// Whether it is being deleted, or goes when it has ended.
pub(super) fn is_going(instance: &Instance) -> bool {
    instance.phase == Phase::Deleting || instance.remove_on_exit
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

/// Gives an instance these names in its first network, where it has others.
pub(super) async fn lead_names(session: &Session, instance: &Instance, aliases: &[Alias]) -> Result {
    let Some(port) = instance.ports.first().filter(|port| port.aliases != aliases) else {
        return Ok(());
    };
    let request = UpdatePort { aliases: Some(aliases.to_vec()), ..UpdatePort::default() };
    session.client.update::<Port>(&port.id.to_string(), &request, &WaitQuery::default()).await?;
    Ok(())
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
        let template = workload.copies.iter().map(|copies| &copies.template);
        let all = workload.pods.iter().chain(template);
        let all: Vec<_> = all.map(|pod| request::request(pod, &workload.reference()).unwrap()).collect();
        assert_eq!(all.len(), 3);
        assert_ne!(all[0].name, all[1].name);
        for one in &all {
            assert_eq!(one.labels[OBJECT], "deployment/web");
            assert_eq!(one.labels[DIGEST], workload.pods[0].digest);
            assert_eq!(one.labels["app"], "web");
        }
    }
}
