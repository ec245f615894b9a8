//! `holm snapshot`: what volumes held at one moment.

use super::{
    completion,
    failure::Result,
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
    wait::{self, WaitArgs},
};
use api::v1::types::{
    list::{ListQuery, WaitQuery},
    snapshot::{CreateSnapshot, Snapshot, SnapshotState, UpdateSnapshot},
    volume::{RestoreVolume, Volume},
};

/// Verbs of `holm snapshot`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List snapshots
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this volume
        #[arg(long, value_name = "VOLUME", add = completion::names("volumes"))]
        volume: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show a snapshot
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("snapshots"))]
        name: String,
    },
    /// Take a snapshot of a volume, while its instance runs or not
    #[command(visible_alias = "take")]
    Create(CreateArgs),
    /// Put a volume back to a snapshot; what was written since is gone
    Restore(RestoreArgs),
    /// Change a snapshot's name, description and labels
    Set(SetArgs),
    /// Delete snapshots; copies made of them stay
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// A new snapshot.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Volume
    #[arg(value_name = "VOLUME", add = completion::names("volumes"))]
    pub volume: String,
    /// Name of the snapshot
    #[arg(value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    pub about: AboutArgs,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// A snapshot to go back to.
#[derive(Debug, Clone, clap::Args)]
pub struct RestoreArgs {
    /// Snapshot
    #[arg(value_name = "NAME", add = completion::names("snapshots"))]
    pub snapshot: String,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Changes to a snapshot's record.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("snapshots"))]
    pub snapshot: String,
    #[command(flatten)]
    pub change: ChangeArgs,
}

impl Shown for Snapshot {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |s| Cell::text(&s.head.name)),
        wide("ID", |s| Cell::text(s.head.id)),
        column("VOLUME", |s| Cell::text(&s.volume.name)),
        column("STATE", |s| Cell::Phase(s.state.as_str())),
        column("SIZE", |s| Cell::text(format!("{} GiB", s.size_gib))),
        wide("PROJECT", |s| Cell::text(&s.head.project.name)),
        column("AGE", |s| Cell::Time(s.head.created_at)),
    ];

    fn name(&self) -> String {
        self.head.name.clone()
    }
}

/// Runs a verb.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, verb: Verb) -> Result {
    match verb {
        Verb::List { volume, list } => {
            noun::list::<Snapshot>(session, &ListQuery { volume, ..list.query() }).await
        }
        Verb::Show { name } => noun::show::<Snapshot>(session, &name).await,
        Verb::Create(args) => create(session, &args).await,
        Verb::Restore(args) => restore(session, &args).await,
        Verb::Set(args) => {
            let request = UpdateSnapshot {
                name: args.change.name.clone(),
                description: args.change.description.clone(),
                labels: args.change.labels(),
            };
            noun::change::<Snapshot>(session, &args.snapshot, &request).await
        }
        Verb::Delete(args) => noun::delete::<Snapshot>(session, &args).await,
    }
}

async fn create(session: &Session, args: &CreateArgs) -> Result {
    let request = CreateSnapshot {
        name: args.name.clone(),
        description: args.about.description.clone(),
        labels: args.about.labels(),
        volume: args.volume.clone(),
    };
    let mut made = session.client.create::<Snapshot>(&request, &WaitQuery::default()).await?;
    if !args.wait.no_wait {
        let id = made.head.id.to_string();
        made = wait::settle::<Snapshot>(session, &id, &made.head.name, None, &args.wait).await?;
    }
    let told = match made.state {
        SnapshotState::Creating => "will be taken",
        SnapshotState::Available => "is taken",
        SnapshotState::Failed => "could not be taken",
    };
    noun::tell(session, &made, &format!("of volume {} {told}", made.volume.name))?;
    session.say("A snapshot lies on the same disk as its volume: it is no backup.");
    session.next(format!("holm volume create NAME --snapshot {}", made.head.name));
    Ok(())
}

async fn restore(session: &Session, args: &RestoreArgs) -> Result {
    let snapshot: Snapshot = session.client.get(&args.snapshot).await?;
    let volume = &snapshot.volume;
    session.confirm(
        args.yes,
        &format!(
            "Put volume {} back to {}? What was written since is gone.",
            volume.name, snapshot.head.name
        ),
    )?;
    let request = RestoreVolume { snapshot: snapshot.head.id.to_string() };
    let id = volume.id.to_string();
    let mut restored = session.client.restore_volume(&id, &request, &WaitQuery::default()).await?;
    if !args.wait.no_wait {
        restored = wait::settle::<Volume>(session, &id, &restored.head.name, None, &args.wait).await?;
    }
    noun::tell(session, &restored, &format!("is what it was at {}", snapshot.head.name))
}
