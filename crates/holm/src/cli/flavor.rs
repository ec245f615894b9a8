//! `holm flavor`: named sizes.

use super::{
    completion,
    failure::Result,
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs, pair},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
    wording,
};
use api::v1::types::flavor::{CreateFlavor, Flavor, UpdateFlavor};

/// Verbs of `holm flavor`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List flavors
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a flavor
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("flavors"))]
        name: String,
    },
    /// Make a flavor; sizes that are missing are read from its name, like g1.c1m512 or g4.r8c4
    Create(CreateArgs),
    /// Change a flavor; its size never changes
    Set(SetArgs),
    /// Delete flavors; instances made with them keep their size
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// A new flavor.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Virtual CPUs
    #[arg(long, value_name = "COUNT")]
    pub cpus: Option<u32>,
    /// Memory: 512m, 2g
    #[arg(long, value_name = "SIZE", value_parser = wording::parse_mib)]
    pub memory: Option<u64>,
    /// Root disk: 10g; 0 for as large as the image
    #[arg(long, value_name = "SIZE", value_parser = wording::parse_gib)]
    pub disk: Option<u64>,
    /// Only for the own project
    #[arg(long)]
    pub private: bool,
    /// Extra spec as OpenStack knows them (may be given several times)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub spec: Vec<(String, String)>,
    #[command(flatten)]
    pub about: AboutArgs,
}

/// Changes to a flavor.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("flavors"))]
    pub flavor: String,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Every project may use it: yes or no
    #[arg(long, value_name = "yes|no", value_parser = super::instance::yes_or_no)]
    pub public: Option<bool>,
    /// Project that may use it while it is not public, instead of all that could (may be given several times); an empty
    /// name for none
    #[arg(long, value_name = "PROJECT", add = completion::names("projects"))]
    pub open_to: Vec<String>,
}

impl Shown for Flavor {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |f| Cell::text(&f.head.name)),
        wide("ID", |f| Cell::text(f.head.id)),
        column("CPUS", |f| Cell::text(f.size.vcpus)),
        column("MEMORY", |f| Cell::Mebibytes(f.size.memory_mib)),
        column("DISK", |f| {
            Cell::text(if f.size.disk_gib == 0 {
                "image".to_string()
            } else {
                format!("{} GiB", f.size.disk_gib)
            })
        }),
        wide("PUBLIC", |f| Cell::flag(f.public)),
        wide("OPEN TO", |f| {
            let names: Vec<&str> = f.projects.iter().map(|project| project.name.as_str()).collect();
            Cell::text(names.join(", "))
        }),
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
        Verb::List(args) => noun::list::<Flavor>(session, &args.query()).await,
        Verb::Show { name } => noun::show::<Flavor>(session, &name).await,
        Verb::Create(args) => {
            let request = CreateFlavor {
                name: args.name.clone(),
                description: args.about.description.clone(),
                labels: args.about.labels(),
                vcpus: args.cpus,
                memory_mib: args.memory,
                disk_gib: args.disk,
                public: args.private.then_some(false),
                extra_specs: args.spec.into_iter().collect(),
            };
            noun::make::<Flavor>(session, &request).await
        }
        Verb::Set(args) => {
            let request = UpdateFlavor {
                name: args.change.name.clone(),
                description: args.change.description.clone(),
                labels: args.change.labels(),
                public: args.public,
                projects: (!args.open_to.is_empty())
                    .then(|| args.open_to.iter().filter(|name| !name.is_empty()).cloned().collect()),
                ..UpdateFlavor::default()
            };
            noun::change::<Flavor>(session, &args.flavor, &request).await
        }
        Verb::Delete(args) => noun::delete::<Flavor>(session, &args).await,
    }
}
