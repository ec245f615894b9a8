//! Bringing the pods of a StatefulSet about: each has a name and claims that stay, and they follow each other.
//!
//! ```text
//!   too many:  the last one goes first, one after the other
//!   missing:   the first one comes first, and is ready before the next one comes
//!   changed:   from the last one down, each goes and comes again under its name, and is ready before the next one goes
//! ```
//! Whoever is cut off in the middle is followed by whoever plays the file again: each step looks at what is there.

use super::{
    DIGEST, PlayArgs, request,
    roll::{is_going, lead_names, make, ready, remove},
};
use crate::cli::{failure::Result, session::Session, wait::WaitArgs};
use api::v1::types::instance::Instance;
use model::kube::{Sequence, Workload};

/// Brings one about. `there` is what was made of it. Tells what was done in a word.
///
/// # Errors
/// As the server refuses, or a pod that does not become ready in time: those after it are left as they are.
pub async fn settle(
    session: &Session,
    workload: &Workload,
    sequence: Sequence,
    there: Vec<Instance>,
    args: &PlayArgs,
) -> Result<&'static str> {
    let to_its_end = WaitArgs { no_wait: false, ..args.wait.clone() };
    let (going, mut there): (Vec<_>, Vec<_>) = there.into_iter().partition(is_going);
    // A name is free once who had it is gone.
    remove(session, &going, &to_its_end).await?;
    let place = |instance: &Instance| workload.pods.iter().position(|pod| pod.name == instance.head.name);
    let is_new = there.is_empty() && going.is_empty();
    let mut surplus: Vec<Instance> = vec![];
    for instance in std::mem::take(&mut there) {
        match place(&instance) {
            Some(_) => there.push(instance),
            None => surplus.push(instance),
        }
    }
    surplus.sort_by_key(|instance| std::cmp::Reverse(number(&instance.head.name)));
    for instance in &surplus {
        remove(session, std::slice::from_ref(instance), &to_its_end).await?;
    }
    let is_scaled = add_missing(session, workload, sequence, &there, args).await?;
    let is_replaced = replace_changed(session, workload, sequence, &there, args).await?;
    Ok(match (is_new, is_replaced, is_scaled || !surplus.is_empty()) {
        (true, ..) if !workload.pods.is_empty() => "created",
        (_, true, _) => "replaced",
        (_, false, true) => "scaled",
        _ => "unchanged",
    })
}

/// Its number, by which pods of one set follow each other.
fn number(name: &str) -> u64 {
    name.rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Makes those that are missing. Each waits for those before it to be ready, unless they come all at once.
async fn add_missing(
    session: &Session,
    workload: &Workload,
    sequence: Sequence,
    there: &[Instance],
    args: &PlayArgs,
) -> Result<bool> {
    let at_once = PlayArgs { wait: WaitArgs { no_wait: true, ..args.wait.clone() }, ..args.clone() };
    let known = |name: &str| there.iter().find(|instance| instance.head.name == name);
    let mut made = vec![];
    let last_missing = workload.pods.iter().rposition(|pod| known(&pod.name).is_none());
    for (place, pod) in workload.pods.iter().enumerate() {
        match known(&pod.name) {
            // Nobody waits for it where nobody comes after it.
            Some(_) if last_missing.is_none_or(|last| last < place) => {}
            Some(instance) if !sequence.parallel => ready(session, instance, &args.wait).await?,
            Some(_) => {}
            None => {
                let instance = make(session, workload, pod, &at_once).await?;
                if !sequence.parallel && !args.wait.no_wait {
                    ready(session, &instance, &args.wait).await?;
                }
                made.push(instance);
            }
        }
    }
    for instance in made.iter().filter(|_| sequence.parallel && !args.wait.no_wait) {
        ready(session, instance, &args.wait).await?;
    }
    Ok(!made.is_empty())
}

/// Makes those anew that differ from the file, from the last one down.
async fn replace_changed(
    session: &Session,
    workload: &Workload,
    sequence: Sequence,
    there: &[Instance],
    args: &PlayArgs,
) -> Result<bool> {
    let to_its_end = WaitArgs { no_wait: false, ..args.wait.clone() };
    let mut is_any = false;
    for (place, pod) in workload.pods.iter().enumerate().rev() {
        let Some(instance) = there.iter().find(|instance| instance.head.name == pod.name) else { continue };
        let is_same = instance.head.labels.get(DIGEST) == Some(&pod.digest);
        if is_same || sequence.replaces_from.is_none_or(|from| place < from) {
            lead_names(session, instance, &request::aliases(pod)?).await?;
            continue;
        }
        is_any = true;
        remove(session, std::slice::from_ref(instance), &to_its_end).await?;
        let instance = make(session, workload, pod, args).await?;
        if !args.wait.no_wait {
            ready(session, &instance, &args.wait).await?;
        }
    }
    Ok(is_any)
}
