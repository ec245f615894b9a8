//! Locks, rebuilds, rescues, and sizes on trial.

use super::{
    completion,
    failure::Result,
    instance::finish,
    noun::{for_each, tell},
    run::request_environment,
    session::Session,
    wait::WaitArgs,
    wording,
};
use api::{
    client::Verb,
    v1::types::{
        instance::{Instance, LockRequest, RebuildRequest, RescueRequest, ResizeRequest},
        list::WaitQuery,
    },
};
use hyper::Method;

/// What to lock, and why.
#[derive(Debug, Clone, clap::Args)]
pub struct LockArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "NAME", add = completion::names("instances"))]
    pub names: Vec<String>,
    /// Why, told to whoever is refused
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// What to unlock.
#[derive(Debug, Clone, clap::Args)]
pub struct UnlockArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "NAME", add = completion::names("instances"))]
    pub names: Vec<String>,
}

/// What to rebuild, and from what.
#[derive(Debug, Clone, clap::Args)]
pub struct RebuildArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "NAME", add = completion::names("instances"))]
    pub names: Vec<String>,
    /// Another image [default: the instance's own]
    #[arg(long, value_name = "IMAGE", add = completion::names("images"))]
    pub image: Option<String>,
    /// Variable of a container: KEY=VALUE, or KEY to pass on your own (may be given several times); the others stay
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// Variable of a container to take away (may be given several times)
    #[arg(long, value_name = "KEY")]
    pub unset: Vec<String>,
    /// Other arguments of a container's program
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub args: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// What to rescue, and from what.
#[derive(Debug, Clone, clap::Args)]
pub struct RescueArgs {
    /// Name, id or unique beginning of an id
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub name: String,
    /// Image to boot from [default: the instance's own]
    #[arg(long, value_name = "IMAGE", add = completion::names("images"))]
    pub image: Option<String>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Which size to try, keep or take back.
#[derive(Debug, Clone, clap::Args)]
pub struct ResizeArgs {
    /// Name, id or unique beginning of an id
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub name: String,
    /// Flavor to try
    #[arg(
        value_name = "FLAVOR",
        required_unless_present_any = ["confirm", "revert"],
        add = completion::names("flavors")
    )]
    pub flavor: Option<String>,
    /// Keep the size on trial; the root disk grows now
    #[arg(long, conflicts_with_all = ["flavor", "revert"])]
    pub confirm: bool,
    /// Take the size on trial back
    #[arg(long, conflicts_with = "flavor")]
    pub revert: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// `holm lock`.
///
/// # Errors
/// As the server refuses.
pub async fn lock(session: &Session, args: &LockArgs) -> Result {
    let request = LockRequest { reason: args.reason.clone() };
    for_each(session, &args.names, async |name| {
        let locked = call(session, &name, "lock", &request).await?;
        tell(session, &locked, "is locked")
    })
    .await
}

/// `holm unlock`.
///
/// # Errors
/// As the server refuses.
pub async fn unlock(session: &Session, args: &UnlockArgs) -> Result {
    for_each(session, &args.names, async |name| {
        let unlocked = session.client.act(&name, Verb::Unlock, &WaitQuery::default()).await?;
        tell(session, &unlocked, "is unlocked")
    })
    .await
}

/// `holm rebuild`.
///
/// # Errors
/// As the server refuses, or the user does.
pub async fn rebuild(session: &Session, args: &RebuildArgs) -> Result {
    let which = wording::counted(args.names.len(), "instance");
    let names = args.names.join(", ");
    session.confirm(args.yes, &format!("Rebuild {which}: {names}? What is on the root disks is lost."))?;
    let set = request_environment(&args.env)?.into_iter().map(|(key, value)| (key, Some(value)));
    let env = set.chain(args.unset.iter().map(|key| (key.clone(), None))).collect();
    let program_args = (!args.args.is_empty()).then(|| args.args.clone());
    let request = RebuildRequest { image: args.image.clone(), env, args: program_args };
    for_each(session, &args.names, async |name| {
        let instance = call(session, &name, "rebuild", &request).await?;
        finish(session, instance, &args.wait, "begins anew").await
    })
    .await
}

/// `holm rescue`.
///
/// # Errors
/// As the server refuses.
pub async fn rescue(session: &Session, args: &RescueArgs) -> Result {
    let request = RescueRequest { image: args.image.clone() };
    let instance = call(session, &args.name, "rescue", &request).await?;
    finish(session, instance, &args.wait, "starts from another disk").await?;
    session.next(format!("holm ssh {0}, mend the second disk, then holm unrescue {0}", args.name));
    Ok(())
}

/// `holm resize`.
///
/// # Errors
/// As the server refuses.
pub async fn resize(session: &Session, args: &ResizeArgs) -> Result {
    let no_wait = WaitQuery::default();
    if args.confirm {
        let instance = session.client.act(&args.name, Verb::ConfirmSize, &no_wait).await?;
        return finish(session, instance, &args.wait, "keeps its size").await;
    }
    if args.revert {
        let instance = session.client.act(&args.name, Verb::RevertSize, &no_wait).await?;
        return finish(session, instance, &args.wait, "has its old size back").await;
    }
    let request = ResizeRequest { flavor: args.flavor.clone().unwrap_or_default() };
    let instance = call(session, &args.name, "resize", &request).await?;
    finish(session, instance, &args.wait, "tries its new size").await?;
    session.next(format!("holm resize {0} --confirm, or holm resize {0} --revert", args.name));
    Ok(())
}

async fn call(session: &Session, name: &str, verb: &str, body: &impl serde::Serialize) -> Result<Instance> {
    let path = format!("/v1/instances/{}/{verb}", super::raw::escape(name));
    Ok(session.client.call(Method::POST, &path, Some(body), None).await?)
}
