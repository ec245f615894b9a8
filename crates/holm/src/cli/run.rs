//! `holm run` and `holm create`: one command for virtual machines and containers; the image says which it is.

mod docker;
mod exposed;
mod foreground;
mod request;

use super::{
    completion,
    failure::Result,
    health::HealthArgs,
    noun::{AboutArgs, tell},
    power,
    session::Session,
    wait::{self, WaitArgs},
    wording,
};
use api::v1::types::{
    instance::{ExtraHost, Instance, UpdateInstance},
    list::WaitQuery,
    restart,
};
use model::{
    instance::{Kind, isolation::Isolation, phase::Phase},
    plan::{Accelerator, RestartPolicy},
};
use std::path::PathBuf;

/// Which kind to use when; part of the help.
pub const KINDS_HELP: &str = "\
Which kind?
  vm          a kernel of its own: any operating system, kernel modules, the strongest wall between you and others
  container   a program from an OCI image on the host's kernel: starts in a blink, costs little
  system      a container with a system of its own inside (init, SSH, many services)
With --isolate vm a container has a kernel of its own: for programs that you do not trust.
The image says which it is (a disk or kernel: vm; an OCI image: container; a root file
system: system); --vm, --container and --system insist.
All kinds have the same networks, addresses, security groups, floating IPs, volumes and quotas.

Examples:
  holm run --name db --flavor g1.c1m512 --key me debian-12
  holm run --name web -d --security-group web nginx:1.27
  holm run --rm -it alpine sh
  holm run --isolate vm --rm -it alpine sh
  holm run --system --name box --key me debian-system
  holm run --name cache -d --memory 256m --volume 10g:/data --restart always redis:7";

/// What to run.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = KINDS_HELP)]
pub struct RunArgs {
    /// Image: a name of `holm image list`, or a registry's reference like debian:12, which is pulled if it is not here
    #[arg(value_name = "IMAGE", add = completion::names("images"))]
    pub image: String,
    /// Program and arguments instead of the image's (container)
    #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// Name [default: made from the image's]
    #[arg(long, short, value_name = "NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub kind: KindArgs,
    #[command(flatten)]
    pub about: AboutArgs,
    #[command(flatten)]
    pub wait: WaitArgs,
    #[command(flatten)]
    pub size: SizeArgs,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub guest: GuestArgs,
    #[command(flatten)]
    pub container: ContainerArgs,
    #[command(flatten)]
    pub further: docker::FurtherArgs,
    #[command(flatten)]
    pub health: HealthArgs,
    #[command(flatten)]
    pub life: LifeArgs,
    /// Print help; -h is the host name, as docker has it
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

/// Kind that is insisted on.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(multiple = false)]
pub struct KindArgs {
    /// A virtual machine
    #[arg(long)]
    pub vm: bool,
    /// A container
    #[arg(long)]
    pub container: bool,
    /// A system container
    #[arg(long)]
    pub system: bool,
}

impl KindArgs {
    fn kind(&self) -> Option<Kind> {
        match (self.vm, self.container, self.system) {
            (true, _, _) => Some(Kind::Vm),
            (_, true, _) => Some(Kind::Container),
            (_, _, true) => Some(Kind::System),
            _ => None,
        }
    }
}

/// How large.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Size")]
pub struct SizeArgs {
    /// Flavor (`holm flavor list`)
    #[arg(long, short, value_name = "FLAVOR", add = completion::names("flavors"))]
    pub flavor: Option<String>,
    /// CPUs, instead of the flavor's; of a container also a part of one: 0.5
    #[arg(long, value_name = "COUNT", value_parser = docker::cpus)]
    pub cpus: Option<docker::Cpus>,
    /// Memory, instead of the flavor's: 512m, 2g
    #[arg(long, short, value_name = "SIZE", value_parser = wording::parse_mib)]
    pub memory: Option<u64>,
    /// Part of the CPUs when they are short, 1 to 10000: with 300 it gets three times what one with 100 gets
    #[arg(long, value_name = "WEIGHT")]
    pub cpu_weight: Option<u32>,
    /// Root disk, instead of the flavor's: 10g. Of a container: most that it may write to its own files
    #[arg(long, value_name = "SIZE", value_parser = wording::parse_gib)]
    pub disk: Option<u64>,
    /// Volume: NAME[:PATH][:ro], SIZE[:PATH][:keep] for a new one, or for a container /PATH:/PATH[:ro], a directory of the
    /// host that its operator lends (may be given several times)
    #[arg(long, short, value_name = "VOLUME")]
    pub volume: Vec<String>,
}

/// Where on the network.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// Network: NAME, NAME,ip=ADDRESS,rate=50m,alias=NAME, subnet=NAME, port=NAME or none (may be given several times)
    #[arg(long, value_name = "NETWORK", add = completion::names("networks"))]
    pub network: Vec<String>,
    /// Security group (may be given several times) [default: the project's group named default]
    #[arg(long, visible_alias = "sg", value_name = "GROUP", add = completion::names("security_groups"))]
    pub security_group: Vec<String>,
    /// Floating IP: auto for a new one, or one that the project has
    #[arg(long, value_name = "auto|ADDRESS", add = completion::names("floating_ips"))]
    pub floating_ip: Option<String>,
    /// Port of this machine that leads to it: [[ADDRESS:]HOST_PORT:]PORT[/tcp|udp|sctp]; without HOST_PORT a free one is
    /// chosen. The security groups still decide who gets in (may be given several times)
    #[arg(long, short, value_name = "PORT")]
    pub publish: Vec<String>,
    /// A free port of this machine for each one that its image says it listens on (container)
    #[arg(long, short = 'P')]
    pub publish_all: bool,
}

/// What a VM or a system container is given.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Virtual machine and system container")]
pub struct GuestArgs {
    /// SSH key to put in (may be given several times; `holm keypair list`)
    #[arg(long, short, value_name = "KEY", add = completion::names("keypairs"))]
    pub key: Vec<String>,
    /// File with user-data for cloud-init; - for standard input
    #[arg(long, value_name = "FILE")]
    pub user_data: Option<PathBuf>,
    /// Offer a config drive beside the metadata service (VM)
    #[arg(long)]
    pub config_drive: bool,
    /// What to run on: auto, kvm or tcg (VM)
    #[arg(long, value_name = "auto|kvm|tcg", value_parser = accelerator)]
    pub accelerator: Option<Accelerator>,
}

/// How a container runs.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Container")]
pub struct ContainerArgs {
    /// Variable of the environment: KEY=VALUE, or KEY to pass on your own (may be given several times)
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// Program instead of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Working directory
    #[arg(long, short, value_name = "PATH")]
    pub workdir: Option<String>,
    /// User: name or number, with :group if wanted
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
    /// Keep standard input open
    #[arg(long, short)]
    pub interactive: bool,
    /// A terminal
    #[arg(long, short)]
    pub tty: bool,
    /// Capability to add, like NET_ADMIN (may be given several times)
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// Capability to drop; ALL for every one (may be given several times)
    #[arg(long, value_name = "CAP")]
    pub cap_drop: Vec<String>,
    /// Root file system that cannot be written
    #[arg(long)]
    pub read_only: bool,
    /// Path kept in memory (may be given several times)
    #[arg(long, value_name = "PATH")]
    pub tmpfs: Vec<String>,
    /// What stands between it and the host: shared (the host's kernel) or vm (a kernel of its own, in a small VM)
    #[arg(long, value_name = "shared|vm", default_value = "shared", hide_default_value = true)]
    pub isolate: Isolation,
    /// Name for /etc/hosts inside (may be given several times)
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = request::extra_host)]
    pub add_host: Vec<ExtraHost>,
}

/// When it starts, ends and goes.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Life")]
pub struct LifeArgs {
    /// Do not show a container's output: return once it runs
    #[arg(long, short)]
    pub detach: bool,
    /// Delete it when it ends
    #[arg(long)]
    pub rm: bool,
    /// When it ends by itself: no, on-failure[:N], always, unless-stopped, on-unhealthy
    #[arg(long, value_name = "POLICY", value_parser = restart::from_text)]
    pub restart: Option<RestartPolicy>,
    /// Start it when the host starts
    #[arg(long)]
    pub autostart: bool,
    /// When the host starts, wait until this instance runs (may be given several times)
    #[arg(long, value_name = "NAME", add = completion::names("instances"))]
    pub start_after: Vec<String>,
    /// Seconds between asking it to stop and pulling the plug
    #[arg(long, alias = "stop-timeout", value_name = "SECONDS")]
    pub grace: Option<u32>,
    /// Server group whose policy chooses its host
    #[arg(long, value_name = "GROUP", add = completion::names("server_groups"))]
    pub server_group: Option<String>,
}

fn accelerator(text: &str) -> std::result::Result<Accelerator, String> {
    serde_json::from_value(text.into()).map_err(|_| "write auto, kvm or tcg".to_string())
}

/// Reads the `-e` options, with the caller's own environment for those without a value.
///
/// # Errors
/// See [`request::environment`].
pub fn request_environment(texts: &[String]) -> Result<std::collections::BTreeMap<String, String>> {
    request::environment(texts, &|key| std::env::var(key).ok())
}

/// `holm run`, and with `start` false `holm create`.
///
/// # Errors
/// As the server refuses, as the instance fails, or the exit code of a container in the foreground.
pub async fn run(session: &Session, args: RunArgs, start: bool) -> Result {
    let name = args.name.clone().unwrap_or_else(|| request::name_for(&args.image, rand::random()));
    let in_foreground = start && !args.life.detach && !args.wait.no_wait && session.printer.format.is_none();
    let mut wanted = request::request(&args, name)?;
    if args.network.publish_all {
        exposed::publish_all(session, &args, &mut wanted).await?;
    }
    wanted.start = (!start).then_some(false);
    // In the foreground the command itself deletes it at the end, once the exit code is known.
    wanted.remove_on_exit = args.life.rm && !in_foreground;
    docker::refuse_id_file(&args.further)?;
    let made: Instance = session.client.create::<Instance>(&wanted, &WaitQuery::default()).await?;
    docker::write_id(&args.further, &made)?;
    if !start {
        tell(session, &made, "is made")?;
        session.next(format!("holm start {}", made.head.name));
        return Ok(());
    }
    if args.wait.no_wait {
        return tell(session, &made, "is being started");
    }
    let is_watched = in_foreground && made.kind == Kind::Container;
    let id = made.head.id.to_string();
    if args.life.rm && in_foreground && !is_watched {
        // A virtual machine has no output to follow: nobody stays here to delete it.
        let request = UpdateInstance { remove_on_exit: Some(true), ..UpdateInstance::default() };
        session.client.update::<Instance>(&id, &request, &WaitQuery::default()).await?;
        wanted.remove_on_exit = true;
    }
    let instance = wait::watch::<Instance>(session, &id, &made.head.name, None, &args.wait).await;
    let instance = match instance {
        Err(failure) if failure.exit == model::error::Code::NotFound.exit_code() && wanted.remove_on_exit => {
            session.say(format!("instance {} ended and is gone", made.head.name));
            return Ok(());
        }
        other => other?,
    };
    if is_watched {
        return foreground::follow(session, &instance, &args).await;
    }
    if instance.phase == Phase::Exited
        && !wanted.remove_on_exit
        && instance.exit.as_ref().is_some_and(|e| e.failed)
    {
        return Err(power::ended(&instance));
    }
    if let Some(failure) = wait::Waited::failure(&instance) {
        foreground::say_kept(session, &instance);
        return Err(failure);
    }
    say_where(session, &instance);
    if !instance.publish.is_empty() {
        super::publish::warn_of_closed(session, &instance).await?;
    }
    if instance.kind == Kind::Container && session.printer.format.is_none() && !session.stdout_is_terminal {
        // For scripts, as docker has it: the id that both commands know.
        return super::output::write(format!("{}\n", instance.head.id.simple()).as_bytes());
    }
    session.printer.made(&instance)
}

fn say_where(session: &Session, instance: &Instance) {
    let name = &instance.head.name;
    let mut addresses: Vec<String> = instance.addresses.iter().map(ToString::to_string).collect();
    addresses.extend(instance.floating_ips.iter().map(|ip| format!("{ip} (floating)")));
    addresses.extend(instance.publish.iter().map(super::publish::arrow));
    let at = if addresses.is_empty() { String::new() } else { format!(" at {}", addresses.join(", ")) };
    let phase = if instance.phase == Phase::Exited { "ran and ended" } else { "is running" };
    session.say(format!("{} {name} {phase}{at}", instance.kind.as_str()));
    let acceleration = instance.facts.get("acceleration").and_then(|text| text.as_str());
    if let Some(text) = acceleration.filter(|text| text.contains("emulated")) {
        session.say(format!("note: {text}"));
    }
    if instance.kind == Kind::Vm {
        let login = if instance.keypairs.is_empty() { "" } else { "holm ssh " };
        session.next(if login.is_empty() {
            format!("holm console {name}")
        } else {
            format!("{login}{name}   (or holm console {name})")
        });
    } else if instance.phase == Phase::Running && instance.kind == Kind::System {
        let login = if instance.keypairs.is_empty() { "" } else { "holm ssh " };
        session.next(match login {
            "" => format!("holm exec -it {name} -- sh   (or holm console {name})"),
            login => format!("{login}{name}   (or holm console {name})"),
        });
    } else if instance.phase == Phase::Running {
        session.next(format!("holm logs -f {name}   (or holm exec -it {name} -- sh)"));
    }
}
