//! `holm kube rollout`: copies anew of what was played, and waiting for them, in the words of kubectl.

use super::deployment::{self, StatusArgs};
use crate::cli::{completion, failure::Result, session::Session};
use api::v1::types::{
    deployment::{Deployment, UpdateDeployment},
    list::WaitQuery,
};
use jiff::Timestamp;

/// Verbs of `holm kube rollout`.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Verb {
    /// Replace all copies by new ones of the same template, one after the other
    Restart(RestartArgs),
    /// Wait until all copies are there and ready
    Status(StatusArgs),
}

/// Whose copies are replaced.
#[derive(Debug, Clone, clap::Args)]
pub struct RestartArgs {
    /// Names, as deployment/NAME, deployment NAME or NAME
    #[arg(value_name = "NAME", required = true, add = completion::names("deployments"))]
    pub names: Vec<String>,
}

/// Runs a verb.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, verb: &Verb) -> Result {
    match verb {
        Verb::Restart(args) => restart(session, args).await,
        Verb::Status(args) => deployment::status(session, args).await,
    }
}

/// Asks for new copies and does not wait for them, as kubectl does not. None is asked for where one of the names is wrong.
async fn restart(session: &Session, args: &RestartArgs) -> Result {
    let mut all = vec![];
    for name in references(&args.names) {
        all.push(deployment::find(session, &name).await?);
    }
    let change = UpdateDeployment { restarted_at: Some(Timestamp::now()), ..UpdateDeployment::default() };
    for found in all {
        let id = found.head.id.to_string();
        let changed = session.client.update::<Deployment>(&id, &change, &WaitQuery::default()).await?;
        super::done(session, &changed.reference(), "restarted")?;
    }
    Ok(())
}

/// What a kind and names mean, or names alone: `deployment web db` is `deployment/web deployment/db`.
pub(super) fn references(words: &[String]) -> Vec<String> {
    match words {
        [kind, names @ ..] if !names.is_empty() && deployment::kind_of(kind).is_some() => {
            names.iter().map(|name| format!("{kind}/{name}")).collect()
        }
        names => names.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_may_stand_before_the_names() {
        for (words, expected) in [
            ("web", "web"),
            ("deployment/web", "deployment/web"),
            ("deployment web", "deployment/web"),
            ("deploy web db", "deploy/web deploy/db"),
            ("ds/agent deployment/web", "ds/agent deployment/web"),
            ("deployment", "deployment"),
            ("web db", "web db"),
        ] {
            let words: Vec<String> = words.split(' ').map(str::to_string).collect();
            assert_eq!(references(&words).join(" "), expected);
        }
    }
}
