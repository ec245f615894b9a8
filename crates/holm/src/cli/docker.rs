//! Docker's verbs: `holm ps`, `holm images`, `holm pull` and so on, with docker's options and docker's output.
//!
//! ```text
//!   list, container, stats   containers       columns    tables and --format     engine     calls of the Docker door
//!   image, archive, login    images           template   Go's templates          progress   pulls and pushes as they go
//!   copy, inspect, usage     both             words      docker's times, sizes   compose    docker's own compose
//! ```
//! They speak to the Docker door, which the native door has under `/docker`: on the same socket, or by TLS with the same
//! token. What holm has a verb of its own for (run, exec, logs, …) is there, not here.

mod archive;
mod columns;
mod compose;
mod container;
mod copy;
mod engine;
mod image;
mod inspect;
mod list;
mod login;
mod progress;
mod stats;
mod template;
mod usage;
mod words;

pub use container::published;
pub use image::{HistoryArgs, history};
pub use words::parse_bytes;

use super::{completion, connection::ConnectionArgs, failure::Result, session::Session};

/// Images to save.
#[derive(Debug, Clone, clap::Args)]
pub struct SaveArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE", add = completion::names("images"))]
    pub images: Vec<String>,
}

/// Docker's verbs that holm has no other for.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List containers in docker's columns
    Ps(list::ListArgs),
    /// List images of containers in docker's columns
    Images(image::ImagesArgs),
    /// Pull an image of containers from a registry
    Pull(image::PullArgs),
    /// Push an image of containers to a registry
    Push(image::PushArgs),
    /// Give an image of containers another name
    Tag(image::TagArgs),
    /// Remove images of containers
    Rmi(image::RemoveArgs),
    /// Show how an image of containers was made
    History(HistoryArgs),
    /// Write images of containers to an archive: -o FILE, or standard output
    Save(SaveArgs),
    /// Read images of containers from an archive
    Load(archive::LoadArgs),
    /// Make an image of containers of a root file system in a tar
    Import(archive::ImportArgs),
    /// Make an image of what a container changed
    Commit(container::CommitArgs),
    /// Show all about containers, images, networks and volumes as docker's JSON
    Inspect(inspect::InspectArgs),
    /// Copy files into a container or out of it
    Cp(copy::CopyArgs),
    /// Show what a container changed of its image's files
    Diff(container::NameArgs),
    /// Write all files of a container to an archive: -o FILE, or standard output
    Export(container::NameArgs),
    /// Give a container another name
    Rename(container::RenameArgs),
    /// Change the size or the restart policy of containers
    Update(container::UpdateArgs),
    /// Wait until containers end, and print their exit codes
    Wait(container::NamesArgs),
    /// Let frozen containers go on
    Unpause(container::NamesArgs),
    /// Show processes of a container
    Top(container::TopArgs),
    /// Show what containers use
    Stats(stats::StatsArgs),
    /// Show what images, containers and volumes take of the disk
    Df(usage::DiskArgs),
    /// Delete what no container needs
    Prune(usage::PruneArgs),
    /// Log in to a registry
    Login(login::LoginArgs),
    /// Forget the login to a registry
    Logout(login::LogoutArgs),
    /// Run docker's compose, as it is installed, against holm
    Compose(compose::ComposeArgs),
}

/// Runs a verb. `file` is the `-o` of those that write a file.
///
/// # Errors
/// As the door refuses.
pub async fn run(
    session: &Session,
    connection: &ConnectionArgs,
    verb: Verb,
    file: Option<std::path::PathBuf>,
) -> Result {
    match verb {
        Verb::Ps(args) => list::run(session, &args).await,
        Verb::Images(args) => image::images(session, &args).await,
        Verb::Pull(args) => image::pull(session, &args).await,
        Verb::Push(args) => image::push(session, &args).await,
        Verb::Tag(args) => image::tag(session, &args).await,
        Verb::Rmi(args) => image::remove(session, &args).await,
        Verb::History(args) => history(session, &args).await,
        Verb::Save(args) => archive::save(session, &args.images, file).await,
        Verb::Load(args) => archive::load(session, &args).await,
        Verb::Import(args) => archive::import(session, &args).await,
        Verb::Commit(args) => container::commit(session, &args).await,
        Verb::Inspect(args) => inspect::run(session, &args).await,
        Verb::Cp(args) => copy::run(session, &args).await,
        Verb::Diff(args) => container::diff(session, &args).await,
        Verb::Export(args) => container::export(session, &args, file).await,
        Verb::Rename(args) => container::rename(session, &args).await,
        Verb::Update(args) => container::update(session, &args).await,
        Verb::Wait(args) => container::wait(session, &args).await,
        Verb::Unpause(args) => container::unpause(session, &args).await,
        Verb::Top(args) => container::top(session, &args).await,
        Verb::Stats(args) => stats::run(session, &args).await,
        Verb::Df(args) => usage::disk(session, &args).await,
        Verb::Prune(args) => usage::prune(session, &args).await,
        Verb::Login(args) => login::log_in(session, &args).await,
        Verb::Logout(args) => login::log_out(&args),
        Verb::Compose(args) => Err(compose::run(&args, connection)),
    }
}
