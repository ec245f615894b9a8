//! `holm image`: what instances start from. Pulled from a registry, or sent from a file, with a progress bar.

mod bytes;
mod download;
mod share;
mod users;

use super::{
    completion,
    failure::{Failure, Result},
    instance::yes_or_no,
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs, pair},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
    wait::{self, Line, WaitArgs, bar, percent},
    wording,
};
use api::v1::types::{
    image::{CreateImage, Image, ImportImage, KernelBootRequest, UpdateImage},
    instance::SaveInstance,
    list::{ListQuery, WaitQuery},
};
use bytes::Source;
use model::{
    image::{Answer, ImageKind, Visibility},
    image_format::{ContainerFormat, FileFormat},
    simplestreams::SCHEME,
};
use std::{collections::BTreeSet, path::PathBuf, sync::mpsc};

/// Verbs of `holm image`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List images
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this kind
        #[arg(long, value_parser = ["disk", "kernel", "initrd", "oci", "system"])]
        kind: Option<String>,
        /// Only those in this state: waiting, staged, fetching, ready, failed
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// Only those that these may use; the community's are in no other list
        #[arg(long, value_parser = ["private", "shared", "community", "public"])]
        visibility: Option<String>,
        /// Only those that other projects share, by this one's answer
        #[arg(long, value_name = "ANSWER", value_parser = ["pending", "accepted", "rejected", "all"])]
        shared_with_me: Option<String>,
        /// Only those with this tag
        #[arg(long)]
        tag: Option<String>,
        /// Those that are hidden
        #[arg(long)]
        hidden: bool,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show an image
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("images"))]
        name: String,
    },
    /// Pull a container image from a registry
    Pull(PullArgs),
    /// Send a disk, kernel or initrd of virtual machines, or a root of system containers, from a file
    #[command(visible_aliases = ["create", "upload"])]
    Import(ImportArgs),
    /// Write an image's bytes to a file, as they were sent
    #[command(visible_alias = "save")]
    Download(download::Args),
    /// Change an image
    Set(SetArgs),
    /// List the projects that an image is shared with
    Members {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("images"))]
        name: String,
    },
    /// List what uses an image: what it cannot be deleted for, and what has layers of it
    Users {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("images"))]
        name: String,
    },
    /// Give a root file system to everybody (admin only): it is made public, and image server's clients fetch it
    Publish {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("images"))]
        name: String,
    },
    /// Share an image with a project; it is made shared if it was private
    Share(share::Args),
    /// Take an image back from a project
    Unshare(share::Args),
    /// Put an image that another project shares into this one's lists
    Accept {
        /// Id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Take an image that another project shares out of this one's lists
    Reject {
        /// Id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Give a container image another name; an image that has it loses it
    Tag {
        /// Name or id
        #[arg(value_name = "IMAGE", add = completion::names("images"))]
        image: String,
        /// The name, as docker spells it: shop/web:1
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Show how an image of containers was made, the last step first
    History(super::docker::HistoryArgs),
    /// Withdraw an image: nobody starts from it or gets its bytes; what runs goes on
    Deactivate {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("images"))]
        name: String,
    },
    /// Let a withdrawn image be used again
    Reactivate {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("images"))]
        name: String,
    },
    /// Delete images; instances made from them go on
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// What every new image may have.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CommonArgs {
    /// Every project may use it (admin only)
    #[arg(long, conflicts_with = "visibility")]
    pub public: bool,
    /// Who may use it: private, shared, community or public
    #[arg(long, value_name = "WHO", value_parser = visibility)]
    pub visibility: Option<Visibility>,
    /// Tag (may be given several times)
    #[arg(long)]
    pub tag: Vec<String>,
    /// Leave it out of lists
    #[arg(long)]
    pub hidden: bool,
    /// It cannot be deleted until that is taken back
    #[arg(long)]
    pub protected: bool,
    /// User that it lets in by SSH, like debian
    #[arg(long, value_name = "USER")]
    pub login: Option<String>,
    /// Property (may be given several times)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub property: Vec<(String, String)>,
    #[command(flatten)]
    pub about: AboutArgs,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// An image of a registry.
#[derive(Debug, Clone, clap::Args)]
pub struct PullArgs {
    /// Reference as docker spells it: debian:12, localhost:5000/web@sha256:...
    #[arg(value_name = "REFERENCE")]
    pub reference: String,
    /// Name [default: made from the reference]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Architecture as Linux names it [default: this host's]
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// A file to send.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  holm image import debian-12 --file debian-12-genericcloud-amd64.qcow2 --login debian
  holm image import vmlinuz --file /boot/vmlinuz --kind kernel
  holm image import micro --file vmlinuz --kind kernel --initrd micro-initrd --cmdline console=ttyS0
  holm image import appliance --file exported.ova      its one disk; raw, qcow2, vmdk, vdi and vhdx are told by content
  holm image import box --file rootfs.tar.xz --kind system          a root with an init, as mmdebstrap and debootstrap make it; or a squashfs
  holm image import box --instance box                               the files of a system container that is stopped
  holm image import web --oci-layout ./web          a directory, or a tar as `docker save` writes it
  holm image import cloud --url https://images.example/cloud.qcow2     if the operator allows that host
  holm image import debian --url simplestreams:https://images.linuxcontainers.org#debian/12     of an image server, checked by its SHA-256")]
pub struct ImportArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// File to send; - for standard input
    #[arg(long, short, value_name = "FILE", required_unless_present_any = ["oci_layout", "url", "instance"])]
    pub file: Option<PathBuf>,
    /// Address of a file that holm fetches by itself, from a host that the operator allows; or of a root file system on an image
    /// server of LXC or Incus: simplestreams:https://HOST#ALIAS
    #[arg(long, value_name = "URL", conflicts_with_all = ["file", "oci_layout", "sha256"])]
    pub url: Option<String>,
    /// System container that is stopped, whose files become the image
    #[arg(long, value_name = "INSTANCE", conflicts_with_all = ["file", "oci_layout", "url", "sha256", "kind"],
        add = completion::names("instances"))]
    pub instance: Option<String>,
    /// What the file is, for those who look: raw, qcow2, vmdk... (holm goes by its content)
    #[arg(long, value_name = "FORMAT")]
    pub disk_format: Option<FileFormat>,
    /// What the file is wrapped in, for those who look: bare, ova, docker...
    #[arg(long, value_name = "FORMAT")]
    pub container_format: Option<ContainerFormat>,
    /// OCI image layout to send: a directory, or a tar file of one, or of `docker save`
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    pub oci_layout: Option<PathBuf>,
    /// What it is: disk, kernel, initrd, oci, or system for a root file system in a tar or a squashfs
    #[arg(long, value_name = "KIND", value_parser = kind)]
    pub kind: Option<ImageKind>,
    /// SHA-256 that the file must have, in hex
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    /// Kernel image to boot instead of the disk's own boot loader (name or id)
    #[arg(long, value_name = "IMAGE", add = completion::names("images"))]
    pub kernel: Option<String>,
    /// Initrd image to boot the kernel with (name or id)
    #[arg(long, value_name = "IMAGE", add = completion::names("images"))]
    pub initrd: Option<String>,
    /// Kernel command line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub cmdline: String,
    /// UEFI rather than BIOS
    #[arg(long)]
    pub uefi: bool,
    /// Architecture as Linux names it [default: this host's]
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// Least root disk: 2g
    #[arg(long, value_name = "SIZE", value_parser = wording::parse_gib)]
    pub min_disk: Option<u64>,
    /// Least memory: 256m
    #[arg(long, value_name = "SIZE", value_parser = wording::parse_mib)]
    pub min_memory: Option<u64>,
    #[command(flatten)]
    pub common: CommonArgs,
}

fn kind(text: &str) -> std::result::Result<ImageKind, String> {
    serde_json::from_value(text.into()).map_err(|_| "write disk, kernel, initrd, oci or system".into())
}

fn visibility(text: &str) -> std::result::Result<Visibility, String> {
    serde_json::from_value(text.into()).map_err(|_| "write private, shared, community or public".into())
}

fn kind_word(kind: ImageKind) -> &'static str {
    match kind {
        ImageKind::Disk => "disk",
        ImageKind::Kernel => "kernel",
        ImageKind::Initrd => "initrd",
        ImageKind::Oci => "oci",
        ImageKind::System => "system",
    }
}

/// Changes to an image.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("images"))]
    pub image: String,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Every project may use it (admin only): yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no, conflicts_with = "visibility")]
    pub public: Option<bool>,
    /// Who may use it: private, shared, community or public (admin only)
    #[arg(long, value_name = "WHO", value_parser = visibility)]
    pub visibility: Option<Visibility>,
    /// Tag to add (may be given several times)
    #[arg(long)]
    pub tag: Vec<String>,
    /// Tag to remove (may be given several times)
    #[arg(long, value_name = "TAG")]
    pub untag: Vec<String>,
    /// Left out of lists: yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub hidden: Option<bool>,
    /// It cannot be deleted: yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub protected: Option<bool>,
    /// User that it lets in by SSH; empty for none
    #[arg(long, value_name = "USER")]
    pub login: Option<String>,
    /// Least root disk: 2g
    #[arg(long, value_name = "SIZE", value_parser = wording::parse_gib)]
    pub min_disk: Option<u64>,
    /// Least memory: 256m
    #[arg(long, value_name = "SIZE", value_parser = wording::parse_mib)]
    pub min_memory: Option<u64>,
    /// Property to set (may be given several times)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub property: Vec<(String, String)>,
    /// Property to remove (may be given several times)
    #[arg(long, value_name = "KEY")]
    pub no_property: Vec<String>,
}

impl Shown for Image {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |i| Cell::text(&i.head.name)),
        wide("ID", |i| Cell::text(i.head.id)),
        column("KIND", |i| Cell::text(kind_word(i.kind))),
        column("STATE", |i| Cell::Phase(i.state.as_str())),
        column("SIZE", |i| i.content.as_ref().map_or(Cell::text(""), |c| Cell::Bytes(c.size_bytes))),
        wide("ARCH", |i| Cell::text(&i.arch)),
        wide("LOGIN", |i| Cell::maybe(i.login.as_ref())),
        wide("REFERENCE", |i| Cell::maybe(i.reference.as_ref())),
        wide("DIGEST", |i| Cell::maybe(i.content.as_ref().map(|c| &c.digest))),
        wide("VISIBILITY", |i| Cell::text(i.visibility.as_str())),
        wide("TAGS", |i| Cell::text(i.tags.iter().map(String::as_str).collect::<Vec<_>>().join(","))),
        wide("PROJECT", |i| Cell::text(&i.head.project.name)),
        column("AGE", |i| Cell::Time(i.head.created_at)),
    ];

    fn name(&self) -> String {
        self.head.name.clone()
    }
}

/// Runs a verb.
///
/// # Errors
/// As the server refuses, or a file cannot be read.
pub async fn run(session: &Session, verb: Verb) -> Result {
    match verb {
        Verb::List { kind, state, visibility, shared_with_me, tag, hidden, list } => {
            let query = ListQuery {
                kind,
                phase: state,
                visibility,
                membership: shared_with_me,
                tag,
                hidden: hidden.then_some(true),
                ..list.query()
            };
            noun::list::<Image>(session, &query).await
        }
        Verb::Show { name } => noun::show::<Image>(session, &name).await,
        Verb::Pull(args) => pull(session, args).await,
        Verb::Import(args) => import(session, args).await,
        Verb::Download(args) => download::run(session, args).await,
        Verb::Set(args) => set(session, args).await,
        Verb::Members { name } => share::list(session, &name).await,
        Verb::Users { name } => users::list(session, &name).await,
        Verb::Publish { name } => share::publish(session, &name).await,
        Verb::Share(args) => share::share(session, &args).await,
        Verb::Unshare(args) => share::unshare(session, &args).await,
        Verb::Accept { id } => share::answer(session, &id, Answer::Accepted).await,
        Verb::Reject { id } => share::answer(session, &id, Answer::Rejected).await,
        Verb::Tag { image, name } => {
            let tagged = session.client.tag_image(&image, &name).await?;
            noun::tell(session, &tagged, &format!("has the content of {image}"))
        }
        Verb::History(args) => super::docker::history(session, &args).await,
        Verb::Deactivate { name } => share::withdraw(session, &name, true).await,
        Verb::Reactivate { name } => share::withdraw(session, &name, false).await,
        Verb::Delete(args) => noun::delete::<Image>(session, &args).await,
    }
}

fn new_image(common: &CommonArgs) -> CreateImage {
    CreateImage {
        name: None,
        description: common.about.description.clone(),
        labels: common.about.labels(),
        kind: None,
        reference: None,
        visibility: if common.public { Some(Visibility::Public) } else { common.visibility },
        arch: None,
        boot: None,
        uefi: false,
        min_disk_gib: 0,
        min_memory_mib: 0,
        protected: common.protected,
        login: common.login.clone(),
        properties: common.property.iter().cloned().collect(),
        tags: common.tag.iter().cloned().collect(),
        hidden: common.hidden,
        disk_format: None,
        container_format: None,
    }
}

async fn pull(session: &Session, args: PullArgs) -> Result {
    let request = CreateImage {
        name: args.name.clone(),
        reference: Some(args.reference.clone()),
        arch: args.arch.clone(),
        ..new_image(&args.common)
    };
    let made = session.client.create::<Image>(&request, &WaitQuery::default()).await?;
    let id = made.head.id.to_string();
    if args.common.wait.no_wait {
        return noun::tell(session, &made, "is being pulled");
    }
    let ready = wait::settle::<Image>(session, &id, &made.head.name, None, &args.common.wait).await?;
    if let Some(fault) = &ready.fault {
        let message = format!("{}; the image that is here stays as it is", fault.message);
        return Err(Failure::new(fault.code, message).hint(fault.hint.as_str()));
    }
    let digest = |image: &Image| image.content.as_ref().map(|content| content.digest.clone());
    let is_new = digest(&made).is_none() || digest(&made) != digest(&ready);
    tell_ready(session, &ready, if is_new { "is pulled" } else { "is up to date" })
}

fn tell_ready(session: &Session, image: &Image, what: &str) -> Result {
    let size =
        image.content.as_ref().map_or(String::new(), |c| format!(" ({})", wording::bytes(c.size_bytes)));
    noun::tell(session, image, &format!("{what}{size}"))?;
    match image.kind {
        ImageKind::Disk | ImageKind::Oci | ImageKind::System => {
            session.next(format!("holm run {}", image.head.name))
        }
        ImageKind::Kernel | ImageKind::Initrd => {}
    }
    Ok(())
}

/// Makes an image of what a system container has become.
async fn save(session: &Session, instance: &str, args: &ImportArgs) -> Result {
    let request = SaveInstance {
        name: args.name.clone(),
        description: args.common.about.description.clone(),
        labels: args.common.about.labels(),
    };
    let made = session.client.save_instance(instance, &request).await?;
    tell_ready(session, &made, &format!("has the files of {instance}"))
}

async fn import(session: &Session, args: ImportArgs) -> Result {
    if let Some(instance) = &args.instance {
        return save(session, instance, &args).await;
    }
    let of_server = args.url.as_ref().is_some_and(|url| url.starts_with(SCHEME));
    let usual = if of_server { ImageKind::System } else { ImageKind::Disk };
    let is_oci = args.oci_layout.is_some() || args.kind == Some(ImageKind::Oci);
    // Opened before anything is made: a wrong path leaves nothing behind.
    let source = match args.oci_layout.as_ref().or(args.file.as_ref()) {
        Some(path) => Some(Source::open(path).await?),
        None => None,
    };
    let boots_kernel = args.kernel.is_some() || args.initrd.is_some() || !args.cmdline.is_empty();
    if boots_kernel && args.kernel.is_none() && args.kind != Some(ImageKind::Kernel) {
        return Err(Failure::usage("--initrd and --cmdline go with --kernel, or with --kind kernel"));
    }
    let request = CreateImage {
        name: Some(args.name.clone()),
        kind: Some(if is_oci { ImageKind::Oci } else { args.kind.unwrap_or(usual) }),
        arch: args.arch.clone(),
        boot: boots_kernel.then(|| KernelBootRequest {
            kernel: args.kernel.clone(),
            initrd: args.initrd.clone(),
            cmdline: args.cmdline.clone(),
        }),
        uefi: args.uefi,
        min_disk_gib: args.min_disk.unwrap_or(0),
        min_memory_mib: args.min_memory.unwrap_or(0),
        disk_format: args.disk_format,
        container_format: args.container_format,
        ..new_image(&args.common)
    };
    let made = session.client.create::<Image>(&request, &WaitQuery::default()).await?;
    let id = made.head.id.to_string();
    let sent = match (source, &args.url) {
        (Some(source), _) => send(session, &made, source, args.sha256.as_deref()).await,
        (None, Some(url)) => {
            let from = ImportImage::Web { url: url.clone() };
            session.client.import_image(&id, &from).await.map(drop).map_err(Failure::from)
        }
        (None, None) => Err(Failure::usage("name a --file")),
    };
    if let Err(failure) = sent {
        // Nothing half done stays: an image without its bytes is of no use.
        let _ = session.client.delete::<Image>(&id, &WaitQuery::default()).await;
        return Err(failure);
    }
    if args.common.wait.no_wait {
        let what = if args.url.is_some() { "is being fetched" } else { "is sent" };
        return noun::tell(session, &made, what);
    }
    let ready = wait::settle::<Image>(session, &id, &made.head.name, None, &args.common.wait).await?;
    tell_ready(session, &ready, "is ready")
}

async fn send(session: &Session, image: &Image, source: Source, sha256: Option<&str>) -> Result {
    let mut line = Line::new(session);
    let total = source.size_bytes;
    let (sender, receiver) = mpsc::channel();
    // The sender only counts; drawing is done here, between two looks at the transfer.
    let progress = move |sent: u64| {
        let _ = sender.send(sent);
    };
    let id = image.head.id.to_string();
    let sending = session.client.upload_image(&id, source.reader, total, sha256, progress);
    tokio::pin!(sending);
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
    loop {
        tokio::select! {
            done = &mut sending => return done.map(drop).map_err(Failure::from),
            _ = tick.tick() => {
                if session.stderr_is_terminal && let Some(sent) = receiver.try_iter().last() {
                    line.tell(&progress_text(&image.head.name, sent, total));
                }
            }
            _ = tokio::signal::ctrl_c() => {
                line.clear();
                session.say("stopped sending; nothing of it is kept");
                return Err(Failure::silent(130));
            }
        }
    }
}

fn progress_text(name: &str, sent: u64, total: Option<u64>) -> String {
    match total {
        Some(total) if total > 0 => {
            let (done, all) = (wording::bytes(sent), wording::bytes(total));
            format!("{name}: sending {} {} % ({done} of {all})", bar(sent, total), percent(sent, total))
        }
        _ => format!("{name}: sending {}", wording::bytes(sent)),
    }
}

async fn set(session: &Session, args: SetArgs) -> Result {
    let public = args.public.map(|public| if public { Visibility::Public } else { Visibility::Private });
    let set = args.property.into_iter().map(|(key, value)| (key, Some(value)));
    let properties = set.chain(args.no_property.into_iter().map(|key| (key, None))).collect();
    let request = UpdateImage {
        name: args.change.name.clone(),
        description: args.change.description.clone(),
        labels: args.change.labels(),
        visibility: public.or(args.visibility),
        min_disk_gib: args.min_disk,
        min_memory_mib: args.min_memory,
        protected: args.protected,
        login: args.login.map(|login| (!login.is_empty()).then_some(login)),
        properties,
        add_tags: args.tag.into_iter().collect::<BTreeSet<_>>(),
        remove_tags: args.untag.into_iter().collect::<BTreeSet<_>>(),
        hidden: args.hidden,
    };
    noun::change::<Image>(session, &args.image, &request).await
}
