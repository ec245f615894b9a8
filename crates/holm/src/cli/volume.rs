//! `holm volume`: disks of VMs and directories of containers.

use super::{
    completion,
    failure::{Failure, Result},
    instance::{finish, yes_or_no},
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
    wait::{self, WaitArgs},
    wording,
};
use api::v1::types::{
    image::Image,
    instance::AttachVolume,
    list::{ListQuery, WaitQuery},
    volume::{CreateVolume, SaveVolume, UpdateVolume, Volume},
};
use model::plan::DiskFormat;

/// What an empty volume takes at most: the tables of its file, not data.
pub const EMPTY_BYTES_MAX: u64 = 1024 * 1024;

/// Verbs of `holm volume`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List volumes
    #[command(visible_alias = "ls")]
    List {
        /// Only those in this state: creating, available, in_use, failed
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show a volume
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("volumes"))]
        name: String,
    },
    /// Make a volume
    Create(CreateArgs),
    /// Put a volume into an instance, while it runs or not
    Attach(AttachArgs),
    /// Take a volume out of its instance; done when the guest let go
    Detach(DetachArgs),
    /// Make a volume larger, while its instance runs or not
    Grow(GrowArgs),
    /// Make an image of a volume, while its instance runs or not
    Save(SaveArgs),
    /// Change a volume
    Set(SetArgs),
    /// Delete volumes and the data on them
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// A new volume.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Size: 10g, 2t; may be missing with --image, --snapshot and --copy-of
    #[arg(long, value_name = "SIZE", value_parser = wording::parse_gib,
        required_unless_present_any = ["image", "snapshot", "copy_of"])]
    pub size: Option<u64>,
    /// Take all its space at once, so that a full disk shows now and not later
    #[arg(long)]
    pub thick: bool,
    /// Image that it starts as
    #[arg(long, value_name = "IMAGE", add = completion::names("images"))]
    pub image: Option<String>,
    /// Snapshot that it starts as
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "image", add = completion::names("snapshots"))]
    pub snapshot: Option<String>,
    /// Volume that it is a copy of, as that is now
    #[arg(long, value_name = "VOLUME", conflicts_with_all = ["image", "snapshot"], add = completion::names("volumes"))]
    pub copy_of: Option<String>,
    #[command(flatten)]
    pub about: AboutArgs,
}

/// A volume and the instance to put it into.
#[derive(Debug, Clone, clap::Args)]
pub struct AttachArgs {
    /// Volume
    #[arg(value_name = "VOLUME", add = completion::names("volumes"))]
    pub volume: String,
    /// Instance
    #[arg(value_name = "INSTANCE", add = completion::names("instances"))]
    pub instance: String,
    /// Where a container sees it
    #[arg(long, value_name = "PATH")]
    pub at: Option<String>,
    /// Refuse writes
    #[arg(long)]
    pub read_only: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// A volume to take out.
#[derive(Debug, Clone, clap::Args)]
pub struct DetachArgs {
    /// Volume
    #[arg(value_name = "VOLUME", add = completion::names("volumes"))]
    pub volume: String,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// A volume and its new size.
#[derive(Debug, Clone, clap::Args)]
pub struct GrowArgs {
    /// Volume
    #[arg(value_name = "VOLUME", add = completion::names("volumes"))]
    pub volume: String,
    /// New size: 20g
    #[arg(value_name = "SIZE", value_parser = wording::parse_gib)]
    pub size: u64,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Changes to a volume.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("volumes"))]
    pub volume: String,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// It goes when its instance goes: yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub delete_with_instance: Option<bool>,
    /// Refuse writes, from the next time on that it is attached: yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub read_only: Option<bool>,
    /// Instances can boot from it: yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub bootable: Option<bool>,
}

/// A volume to make an image of.
#[derive(Debug, Clone, clap::Args)]
pub struct SaveArgs {
    /// Volume
    #[arg(value_name = "VOLUME", add = completion::names("volumes"))]
    pub volume: String,
    /// Name of the image
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Format of its file: qcow2 or raw
    #[arg(long, value_name = "FORMAT", default_value = "qcow2", value_parser = disk_format)]
    pub format: DiskFormat,
    #[command(flatten)]
    pub about: AboutArgs,
    #[command(flatten)]
    pub wait: WaitArgs,
}

fn disk_format(text: &str) -> std::result::Result<DiskFormat, String> {
    match text {
        "qcow2" => Ok(DiskFormat::Qcow2),
        "raw" => Ok(DiskFormat::Raw),
        _ => Err("the formats are qcow2 and raw".to_string()),
    }
}

impl Shown for Volume {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |v| Cell::text(&v.head.name)),
        wide("ID", |v| Cell::text(v.head.id)),
        column("STATE", |v| Cell::Phase(v.state.as_str())),
        column("SIZE", |v| Cell::text(format!("{} GiB", v.size_gib))),
        column("USED", |v| Cell::Bytes(v.used_bytes)),
        wide("SNAPSHOTS", |v| Cell::text(v.snapshots)),
        column("INSTANCE", |v| Cell::maybe(v.attached_to.as_ref().map(|i| &i.name))),
        wide("MOUNTED AT", |v| Cell::maybe(v.mount_path.as_ref())),
        wide("THICK", |v| Cell::flag(v.thick)),
        wide("GOES WITH INSTANCE", |v| Cell::flag(v.delete_with_instance)),
        wide("NODE", |v| Cell::maybe(v.node.as_ref().map(|n| &n.name))),
        wide("PROJECT", |v| Cell::text(&v.head.project.name)),
        column("AGE", |v| Cell::Time(v.head.created_at)),
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
        Verb::List { state, list } => {
            noun::list::<Volume>(session, &ListQuery { phase: state, ..list.query() }).await
        }
        Verb::Show { name } => noun::show::<Volume>(session, &name).await,
        Verb::Create(args) => create(session, &args).await,
        Verb::Attach(args) => attach(session, &args).await,
        Verb::Detach(args) => detach(session, &args).await,
        Verb::Grow(args) => grow(session, &args).await,
        Verb::Save(args) => save(session, &args).await,
        Verb::Set(args) => {
            let request = UpdateVolume {
                name: args.change.name.clone(),
                description: args.change.description.clone(),
                labels: args.change.labels(),
                delete_with_instance: args.delete_with_instance,
                size_gib: None,
                read_only: args.read_only,
                bootable: args.bootable,
            };
            noun::change::<Volume>(session, &args.volume, &request).await
        }
        Verb::Delete(args) => delete(session, &args).await,
    }
}

async fn create(session: &Session, args: &CreateArgs) -> Result {
    let request = CreateVolume {
        name: args.name.clone(),
        description: args.about.description.clone(),
        labels: args.about.labels(),
        size_gib: args.size,
        thick: args.thick,
        image: args.image.clone(),
        snapshot: args.snapshot.clone(),
        copy_of: args.copy_of.clone(),
    };
    let made = session.client.create::<Volume>(&request, &WaitQuery::default()).await?;
    noun::tell(session, &made, &format!("is made ({} GiB)", made.size_gib))?;
    session.next(format!("holm volume attach {} INSTANCE", made.head.name));
    Ok(())
}

async fn attach(session: &Session, args: &AttachArgs) -> Result {
    let request = AttachVolume {
        volume: Some(args.volume.clone()),
        mount_path: args.at.clone(),
        read_only: args.read_only,
        ..AttachVolume::default()
    };
    let instance = session.client.attach_volume(&args.instance, &request, &WaitQuery::default()).await?;
    let serial =
        instance.volumes.iter().find(|v| v.name == args.volume || v.id.to_string().starts_with(&args.volume));
    let serial =
        serial.map_or(String::new(), |v| format!("; in a VM it is /dev/disk/by-id/virtio-{}", v.serial));
    finish(session, instance, &args.wait, &format!("has volume {}{serial}", args.volume)).await
}

async fn detach(session: &Session, args: &DetachArgs) -> Result {
    let volume: Volume = session.client.get(&args.volume).await?;
    let Some(instance) = &volume.attached_to else {
        session.say(format!("volume {} is in no instance", volume.head.name));
        return Ok(());
    };
    let id = volume.head.id.to_string();
    let instance = session.client.detach_volume(&instance.id.to_string(), &id, &WaitQuery::default()).await?;
    finish(session, instance, &args.wait, &format!("no longer has volume {}", volume.head.name)).await
}

async fn grow(session: &Session, args: &GrowArgs) -> Result {
    let before: Volume = session.client.get(&args.volume).await?;
    if args.size < before.size_gib {
        return Err(Failure::usage(format!(
            "volume {} has {} GiB already: a volume only grows",
            before.head.name, before.size_gib
        ))
        .hint("to make it smaller, copy the data to a new volume"));
    }
    let request = UpdateVolume { size_gib: Some(args.size), ..UpdateVolume::default() };
    let id = before.head.id.to_string();
    let mut changed = session.client.update::<Volume>(&id, &request, &WaitQuery::default()).await?;
    if !args.wait.no_wait {
        changed = wait::settle::<Volume>(session, &id, &changed.head.name, None, &args.wait).await?;
    }
    noun::tell(
        session,
        &changed,
        &format!("has {} GiB now; the file system on it grows by its own tools", changed.size_gib),
    )
}

async fn save(session: &Session, args: &SaveArgs) -> Result {
    let request = SaveVolume {
        name: args.image.clone(),
        description: args.about.description.clone(),
        labels: args.about.labels(),
        format: Some(args.format),
        public: false,
    };
    let mut made = session.client.save_volume(&args.volume, &request, &WaitQuery::default()).await?;
    if !args.wait.no_wait {
        let id = made.head.id.to_string();
        made = wait::settle::<Image>(session, &id, &made.head.name, None, &args.wait).await?;
    }
    noun::tell(session, &made, &format!("of volume {} is {}", args.volume, made.state.as_str()))?;
    session.next(format!("holm run {}", made.head.name));
    Ok(())
}

async fn delete(session: &Session, args: &DeleteArgs) -> Result {
    let mut with_data = vec![];
    for name in &args.names {
        let volume: Volume = session.client.get(name).await?;
        if volume.used_bytes > EMPTY_BYTES_MAX {
            with_data.push(format!("{} ({})", volume.head.name, wording::bytes(volume.used_bytes)));
        }
    }
    if !with_data.is_empty() {
        session.confirm(args.yes, &format!("Delete the data on {}?", with_data.join(", ")))?;
    } else if args.names.len() > 1 {
        session.confirm(
            args.yes,
            &format!("Delete {}: {}?", wording::counted(args.names.len(), "volume"), args.names.join(", ")),
        )?;
    }
    noun::delete_all::<Volume>(session, &args.names, &args.wait).await
}
