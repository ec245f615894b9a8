//! `holm kube`: files of Kubernetes, played with what holm has.
//!
//! ```text
//!   play      the file ──model::kube──► plan ──► Services, volumes, pods: made, left as they are, or replaced one by one
//!   down      the file ──model::kube──► plan ──► its pods go; volumes of claims go with --force alone
//!   generate  an instance ──► a Pod that can be played again
//! ```
//! What was played is known by labels: `kube` says which object of a file an instance or a volume is, `kube-digest` what
//! the file asked for. So a file that is played twice changes nothing, and one that was cut off is played again. What is
//! made of several copies is told to the daemon, which keeps as many; here is only waited for it.

mod deployment;
mod generate;
mod request;
mod roll;
mod rollout;
mod sequence;
mod service;

use super::{
    completion,
    failure::{Failure, Result},
    noun::ListArgs,
    session::Session,
    wait::{self, WaitArgs},
};
use api::v1::types::{
    instance::Instance,
    list::{ListQuery, WaitQuery},
    volume::{CreateVolume, Volume},
};
use model::{
    error::Code,
    kube::{self, Plan, Workload, config::Claim, document::TEXT_BYTES_MAX},
    meta::Labels,
};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// Label that tells which object of a file something is.
const OBJECT: &str = model::deployment::OBJECT_LABEL;
/// Label that tells what the file asked for.
const DIGEST: &str = model::deployment::REVISION_LABEL;

/// Verbs of `holm kube`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Make what a file of Kubernetes asks for, or change what is there to it
    Play(PlayArgs),
    /// Delete what a file asks for
    Down(DownArgs),
    /// List the Deployments and DaemonSets that were played, with their copies
    #[command(visible_alias = "ls")]
    Get(ListArgs),
    /// Ask for another number of copies
    Scale(deployment::ScaleArgs),
    /// Wait until all copies are there and ready
    Status(deployment::StatusArgs),
    /// Replace all copies by new ones, or wait for them, in the words of kubectl
    #[command(subcommand)]
    Rollout(rollout::Verb),
    /// Print an instance of containers as a Pod of Kubernetes
    Generate {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("instances"))]
        name: String,
    },
}

/// What to play.
#[derive(Debug, Clone, clap::Args)]
pub struct PlayArgs {
    /// File in YAML; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Make pods and jobs anew that are there and differ
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// What to delete.
#[derive(Debug, Clone, clap::Args)]
pub struct DownArgs {
    /// File in YAML; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Delete the volumes of its claims too, with all data on them
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Runs a verb.
///
/// # Errors
/// What is wrong with the file, or as the server refuses.
pub async fn run(session: &Session, project: Option<&str>, verb: Verb) -> Result {
    match verb {
        Verb::Play(args) => play(session, project, &args).await,
        Verb::Down(args) => down(session, project, &args).await,
        Verb::Get(args) => deployment::list(session, &args).await,
        Verb::Scale(args) => deployment::scale(session, &args).await,
        Verb::Status(args) => deployment::status(session, &args).await,
        Verb::Rollout(verb) => rollout::run(session, &verb).await,
        Verb::Generate { name } => generate::generate(session, &name).await,
    }
}

fn read(session: &Session, project: Option<&str>, file: &Path) -> Result<Plan> {
    let broken = |error| Failure::local(format!("cannot read {}", file.display()), &error);
    let source: Box<dyn Read> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(file).map_err(broken)?),
    };
    let mut text = String::new();
    source.take(TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(broken)?;
    understand(session, project, &file.display().to_string(), &text)
}

fn understand(session: &Session, project: Option<&str>, source: &str, text: &str) -> Result<Plan> {
    let plan = kube::plan(text, project.unwrap_or("default")).map_err(|refusal| {
        let failure = Failure::new(Code::Invalid, format!("{source}: {refusal}"));
        failure.hint(refusal.hint)
    })?;
    for warning in &plan.warnings {
        session.warn(warning.to_string());
    }
    Ok(plan)
}

/// One line for each object on stdout, as it is done.
fn done(session: &Session, object: &str, word: &str) -> Result {
    if session.quiet {
        return Ok(());
    }
    super::output::write(format!("{object} {word}\n").as_bytes())
}

/// Plays the text of a file.
///
/// # Errors
/// What is wrong with it, or as the server refuses.
pub async fn play_text(
    session: &Session,
    project: Option<&str>,
    source: &str,
    text: &str,
    wait: &WaitArgs,
) -> Result {
    let plan = understand(session, project, source, text)?;
    let args = PlayArgs { file: PathBuf::from(source), replace: false, wait: wait.clone() };
    play_plan(session, &plan, &args).await
}

/// Deletes what the text of a file asks for; the volumes of its claims with `force` alone.
///
/// # Errors
/// What is wrong with it, or as the server refuses.
pub async fn down_text(
    session: &Session,
    project: Option<&str>,
    source: &str,
    text: &str,
    force: bool,
    wait: &WaitArgs,
) -> Result {
    let plan = understand(session, project, source, text)?;
    let args = DownArgs { file: PathBuf::from(source), force, wait: wait.clone() };
    down_plan(session, &plan, &args).await
}

async fn play(session: &Session, project: Option<&str>, args: &PlayArgs) -> Result {
    play_plan(session, &read(session, project, &args.file)?, args).await
}

async fn play_plan(session: &Session, plan: &Plan, args: &PlayArgs) -> Result {
    for part in &plan.parts {
        done(session, part, "read")?;
    }
    for service in &plan.services {
        let word = service::settle(session, service).await?;
        done(session, &service::reference(service), word)?;
    }
    for claim in &plan.claims {
        let word = add_claim(session, claim).await?;
        done(session, &of_claim(claim), word)?;
    }
    for workload in &plan.workloads {
        let word = roll::settle(session, workload, args).await?;
        done(session, &workload.reference(), word)?;
    }
    Ok(())
}

fn of_claim(claim: &Claim) -> String {
    format!("persistentvolumeclaim/{}", claim.name)
}

/// A volume for a claim. One that is there is kept as it is.
async fn add_claim(session: &Session, claim: &Claim) -> Result<&'static str> {
    match session.client.get::<Volume>(&claim.name).await {
        Ok(volume) if volume.size_gib < claim.size_gib => {
            let message =
                format!("volume {} has {} GiB, not {}", claim.name, volume.size_gib, claim.size_gib);
            let size = claim.size_gib;
            return Err(Failure::new(Code::Conflict, message)
                .hint(format!("`holm volume set {} --size {size}` makes it larger", claim.name)));
        }
        Ok(_) => return Ok("unchanged"),
        Err(error) if error.code() == Code::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let request = CreateVolume {
        name: claim.name.clone(),
        labels: Labels::from([(OBJECT.to_string(), of_claim(claim))]),
        size_gib: Some(claim.size_gib),
        ..CreateVolume::default()
    };
    session.client.create::<Volume>(&request, &WaitQuery::default()).await?;
    Ok("created")
}

/// Instances that were made of an object of a file.
async fn made_of(session: &Session, workload: &Workload) -> Result<Vec<Instance>> {
    let label = Some(format!("{OBJECT}={}", workload.reference()));
    let mut all: Vec<Instance> =
        session.client.list_all(&ListQuery { label, ..ListQuery::default() }).await?;
    all.sort_by(|one, other| one.head.name.cmp(&other.head.name));
    Ok(all)
}

async fn down(session: &Session, project: Option<&str>, args: &DownArgs) -> Result {
    down_plan(session, &read(session, project, &args.file)?, args).await
}

async fn down_plan(session: &Session, plan: &Plan, args: &DownArgs) -> Result {
    for workload in plan.workloads.iter().rev() {
        if workload.copies.is_some() {
            deployment::forget(session, workload).await?;
        }
        let all = made_of(session, workload).await?;
        roll::remove(session, &all, &args.wait).await?;
        done(session, &workload.reference(), if all.is_empty() { "is not there" } else { "deleted" })?;
    }
    for service in plan.services.iter().rev() {
        let word = service::drop(session, service).await?;
        done(session, &service::reference(service), word)?;
    }
    for claim in plan.claims.iter().rev() {
        let word = drop_claim(session, claim, args).await?;
        done(session, &of_claim(claim), word)?;
    }
    Ok(())
}

/// Deletes the volume of a claim, if it was made of that and its data is to go.
async fn drop_claim(session: &Session, claim: &Claim, args: &DownArgs) -> Result<&'static str> {
    let volume = match session.client.get::<Volume>(&claim.name).await {
        Ok(volume) => volume,
        Err(error) if error.code() == Code::NotFound => return Ok("is not there"),
        Err(error) => return Err(error.into()),
    };
    if !args.force {
        return Ok("kept (--force deletes it)");
    }
    if volume.head.labels.get(OBJECT) != Some(&of_claim(claim)) {
        return Ok("kept: it was not made of a file");
    }
    wait::gone::<Volume>(session, &volume.head.id.to_string(), &claim.name, &args.wait).await?;
    Ok("deleted")
}
