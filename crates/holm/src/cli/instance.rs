//! `holm instance`: virtual machines, pods of containers and system containers, one noun; and its page.

use super::{
    advise, completion,
    failure::{Failure, Result},
    health, keys,
    noun::{self, ChangeArgs, ListArgs},
    output::{self, Cell, Column, Format, Shown, column, page::Page, wide},
    power, publish,
    run::{self as run_command, RunArgs},
    session::Session,
    wait::{self, WaitArgs},
    wording,
};
use api::v1::types::{
    instance::{AttachPort, Container, Instance, UpdateInstance},
    list::{ListQuery, WaitQuery},
    restart,
    volume::Volume,
};
use jiff::Timestamp;
use model::{
    instance::{Kind, tag::Tag},
    plan::{DiskFormat, RestartPolicy},
    port::alias::Alias,
};
use std::{collections::BTreeSet, net::IpAddr};

/// Verbs of `holm instance`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List instances
    #[command(visible_alias = "ls")]
    List(InstanceListArgs),
    /// Show all about an instance
    #[command(visible_aliases = ["info", "get"])]
    Show(InfoArgs),
    /// Make an instance without starting it
    #[command(disable_help_flag = true)]
    Create(Box<RunArgs>),
    /// Change an instance
    Set(SetArgs),
    /// Delete instances
    #[command(visible_alias = "rm")]
    Delete(RemoveArgs),
    /// Start instances
    Start(power::PowerArgs),
    /// Stop instances
    Stop(power::StopArgs),
    /// Stop and start again
    #[command(visible_alias = "reboot")]
    Restart(power::RestartArgs),
    /// Plug a network interface in, while it runs or not
    AttachPort(AttachPortArgs),
    /// Unplug a network interface
    DetachPort(DetachPortArgs),
}

/// What lists of instances can be asked for.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct InstanceListArgs {
    /// Only those of this kind
    #[arg(long, value_parser = ["vm", "container", "system"])]
    pub kind: Option<String>,
    /// Only those in this phase, like running or failed
    #[arg(long, value_name = "PHASE")]
    pub phase: Option<String>,
    /// Only those of this network
    #[arg(long, value_name = "NETWORK", add = completion::names("networks"))]
    pub network: Option<String>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// Which instance to show.
#[derive(Debug, Clone, clap::Args)]
pub struct InfoArgs {
    /// Name, id or unique beginning of an id
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub name: String,
}

/// Changes to an instance.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name, id or unique beginning of an id
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub instance: String,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Start again when the host starts: yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub autostart: Option<bool>,
    /// Start it at these times, in UTC, as cron has them ("30 2 * * 1-5", @hourly); none for no longer
    #[arg(long, value_name = "TIMES|none")]
    pub schedule: Option<String>,
    /// SSH key to let in from now on (may be given several times): a VM's guest agent is told
    #[arg(long, short, value_name = "KEY", add = completion::names("keypairs"))]
    pub key: Vec<String>,
    /// SSH key to let in no more (may be given several times)
    #[arg(long, value_name = "KEY", add = completion::names("keypairs"))]
    pub no_key: Vec<String>,
    /// When the host starts, wait until this instance runs (may be given several times); an empty name for none
    #[arg(long, value_name = "NAME", add = completion::names("instances"))]
    pub start_after: Vec<String>,
    /// What happens when it ends by itself: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = restart::from_text)]
    pub restart: Option<RestartPolicy>,
    /// Seconds between asking it to stop and pulling the plug
    #[arg(long, value_name = "SECONDS")]
    pub grace: Option<u32>,
    /// Refuse deletion and power changes of anyone but an admin: yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub locked: Option<bool>,
    /// Tag to hang on it (may be given several times); an empty one takes all tags away first
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// Delete it when it ends: yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub rm: Option<bool>,
    /// Another flavor: a container takes it while it runs, a VM when it restarts
    #[arg(long, value_name = "FLAVOR", add = completion::names("flavors"))]
    pub flavor: Option<String>,
    /// Other CPUs: a container takes them while it runs, a VM when it restarts
    #[arg(long, value_name = "COUNT")]
    pub cpus: Option<u32>,
    /// Other memory (512m, 2g): a container takes it while it runs, a VM when it restarts
    #[arg(long, value_name = "SIZE", value_parser = wording::parse_mib)]
    pub memory: Option<u64>,
    /// More disk for what a container writes (20g), while it runs where the host can; of a VM: `holm volume grow`
    #[arg(long, value_name = "SIZE", value_parser = wording::parse_gib)]
    pub disk: Option<u64>,
    /// Another part of the CPUs when they are short, 1 to 10000, at once; 100 is usual
    #[arg(long, value_name = "WEIGHT")]
    pub cpu_weight: Option<u32>,
}

/// Reads `yes` or `no`.
///
/// # Errors
/// It is neither.
pub fn yes_or_no(text: &str) -> std::result::Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" => Ok(true),
        "no" | "false" | "off" => Ok(false),
        _ => Err("write yes or no".into()),
    }
}

/// Which instances to delete.
#[derive(Debug, Clone, clap::Args)]
pub struct RemoveArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "NAME", add = completion::names("instances"))]
    pub names: Vec<String>,
    /// Pull the plug first instead of asking the guest, do not ask, and do not mind what is gone already
    #[arg(long, short)]
    pub force: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// A network interface to plug in.
#[derive(Debug, Clone, clap::Args)]
pub struct AttachPortArgs {
    /// Instance
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub instance: String,
    /// Network
    #[arg(long, value_name = "NETWORK", add = completion::names("networks"))]
    pub network: Option<String>,
    /// Subnet of it
    #[arg(long, value_name = "SUBNET", add = completion::names("subnets"))]
    pub subnet: Option<String>,
    /// Address
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<IpAddr>,
    /// A port that exists, instead of all others
    #[arg(long, value_name = "PORT", add = completion::names("ports"))]
    pub port: Option<String>,
    /// Security group of a new port (may be given several times)
    #[arg(long, value_name = "GROUP", add = completion::names("security_groups"))]
    pub security_group: Vec<String>,
    /// Further name of a new port in its network (may be given several times)
    #[arg(long, value_name = "NAME", conflicts_with = "port")]
    pub alias: Vec<Alias>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// A network interface to unplug.
#[derive(Debug, Clone, clap::Args)]
pub struct DetachPortArgs {
    /// Instance
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub instance: String,
    /// Port, by name or id
    #[arg(value_name = "PORT", add = completion::names("ports"))]
    pub port: String,
    #[command(flatten)]
    pub wait: WaitArgs,
}

impl Shown for Instance {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |i| Cell::text(&i.head.name)),
        wide("ID", |i| Cell::text(i.head.id)),
        column("PHASE", |i| match &i.health {
            Some(health) => Cell::PhaseAnd(i.phase.as_str(), health.clone()),
            None => Cell::Phase(i.phase.as_str()),
        }),
        wide("HEALTH", |i| Cell::maybe(i.health.as_ref())),
        column("KIND", |i| Cell::text(i.kind.as_str())),
        column("IMAGE", |i| Cell::maybe(i.image.as_ref().map(|image| &image.name))),
        column("ADDRESSES", |i| Cell::addresses(&i.addresses)),
        column("FLOATING IP", |i| Cell::addresses(&i.floating_ips)),
        column("PUBLISHED", |i| Cell::list(i.publish.iter().map(publish::arrow))),
        wide("CPUS", |i| Cell::text(i.size.vcpus)),
        wide("MEMORY", |i| Cell::Mebibytes(i.size.memory_mib)),
        wide("FLAVOR", |i| Cell::maybe(i.flavor.as_ref().map(|flavor| &flavor.name))),
        wide("NODE", |i| Cell::maybe(i.node.as_ref().map(|node| &node.name))),
        wide("PROJECT", |i| Cell::text(&i.head.project.name)),
        wide("PROGRESS", |i| Cell::text(&i.progress)),
        column("AGE", |i| Cell::Time(i.head.created_at)),
    ];

    fn name(&self) -> String {
        self.head.name.clone()
    }

    fn page(&self, now: Timestamp) -> Page {
        instance_page(self, now)
    }
}

fn instance_page(i: &Instance, now: Timestamp) -> Page {
    let mut page = Page::new(now);
    let phase =
        if i.progress.is_empty() { i.phase.to_string() } else { format!("{}, {}", i.phase, i.progress) };
    page.line("Name", &i.head.name).line("ID", i.head.id.to_string()).line("Phase", phase);
    health::lines(&mut page, i, now);
    if let Some(fault) = &i.fault {
        page.line("Fault", format!("{} (since {})", fault.message, wording::time(fault.since, now)));
        page.line("Way out", &fault.hint);
    }
    if let Some(exit) = &i.exit {
        let code = exit.code.map_or(String::new(), |code| format!("code {code}, "));
        page.line("Ended", format!("{code}{} at {}", exit.cause, wording::time(exit.at, now)));
    }
    page.line("Kind", kind_in_words(i));
    page.line("Project", &i.head.project.name).line("Description", &i.head.description);
    let labels: Vec<String> = i.head.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    page.line("Labels", labels.join(", "));
    page.line("Tags", i.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>().join(", "));
    page.line("Size", size_in_words(i));
    page.line("On trial", trial_in_words(i, now));
    page.line("Now", until_then(i).unwrap_or_default());
    page.line("CPU weight", if i.cpu_weight == 100 { String::new() } else { i.cpu_weight.to_string() });
    page.line("Image", i.image.as_ref().map_or("", |image| image.name.as_str()));
    page.line(
        "In rescue",
        i.rescue.as_ref().map_or(String::new(), |image| format!("runs from {}", image.name)),
    );
    page.line("Host", i.node.as_ref().map_or("", |node| node.name.as_str()));
    page.line("Server group", i.server_group.as_ref().map_or("", |group| group.name.as_str()));
    facts(&mut page, i);
    page.line("SSH keys", keys_in_words(i)).line("SSH login", i.login.clone().unwrap_or_default());
    let after: Vec<&str> = i.start_after.iter().map(|other| other.name.as_str()).collect();
    let after = if after.is_empty() { String::new() } else { format!(", after {}", after.join(", ")) };
    if let Some(times) = &i.schedule {
        let next =
            i.next_start.map_or(String::new(), |next| format!(", next at {}", next.strftime("%F %H:%M UTC")));
        page.line("Schedule", format!("{times}{next}"));
    }
    page.line("Autostart", format!("{}{after}", if i.autostart { "with the host" } else { "no" }));
    let restarts = if i.restarts > 0 { format!(" ({} in a row)", i.restarts) } else { String::new() };
    page.line("Restart", restart::to_text(i.restart) + &restarts);
    page.line("Grace time", format!("{} s to stop by itself", i.grace_s));
    page.line("On exit", if i.remove_on_exit { "it is deleted" } else { "" });
    let why = i.lock_reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    page.line(
        "Locked",
        if i.locked { format!("against deletion and power changes{why}") } else { String::new() },
    );
    if let Some(since) = i.started_at {
        page.line("Started", wording::time(since, now));
    }
    page.line("Created", wording::time(i.head.created_at, now));
    let published: Vec<String> = i.publish.iter().map(publish::arrow).collect();
    page.line("Published", published.join(", "));
    let hosts = i.extra_hosts.iter().map(|host| format!("{}={}", host.name, host.address));
    page.line("Extra hosts", hosts.collect::<Vec<_>>().join(", "));
    parts(&mut page, i);
    page
}

/// `mine, old (it does not let old in yet: …)`.
fn keys_in_words(i: &Instance) -> String {
    let pending = keys::pending_in_words(i).map_or(String::new(), |pending| format!(" ({pending})"));
    (i.keypairs.join(", ") + &pending).trim_start().to_string()
}

fn size_in_words(i: &Instance) -> String {
    let flavor = i.flavor.as_ref().map_or(String::new(), |f| format!(" (flavor {})", f.name));
    let disk = if i.size.disk_gib > 0 { format!(", {} GiB disk", i.size.disk_gib) } else { String::new() };
    let cpus = wording::counted(i.size.vcpus as usize, "CPU");
    let memory = wording::mebibytes(i.size.memory_mib);
    format!("{cpus}, {memory} memory{disk}{flavor}")
}

fn trial_in_words(i: &Instance, now: Timestamp) -> String {
    let Some(trial) = &i.trial else { return String::new() };
    let before = trial.flavor.as_ref().map_or_else(
        || {
            format!(
                "{} and {} memory",
                wording::counted(trial.size.vcpus as usize, "CPU"),
                wording::mebibytes(trial.size.memory_mib)
            )
        },
        |flavor| format!("flavor {}", flavor.name),
    );
    let name = &i.head.name;
    let since = wording::time(trial.since, now);
    format!("since {since}; before: {before}. `holm resize {name} --confirm` or --revert")
}

/// `1 CPU and 512 MiB memory until it restarts`, when that is not yet what it is to have.
fn until_then(i: &Instance) -> Option<String> {
    let has = i.until_restart?;
    let (cpus, memory) = (wording::counted(has.vcpus as usize, "CPU"), wording::mebibytes(has.memory_mib));
    let disk = if has.disk_gib > 0 { format!(" and {} GiB disk", has.disk_gib) } else { String::new() };
    let then = if waits_for_restart(i) { "until it restarts" } else { "for a moment yet" };
    Some(format!("{cpus} and {memory} memory{disk} {then}"))
}

/// A container takes another size while it runs, but for a disk where the host cannot let it grow; a VM with its next
/// start.
fn waits_for_restart(i: &Instance) -> bool {
    i.until_restart.is_some_and(|has| {
        let disk_alone = (has.vcpus, has.memory_mib) == (i.size.vcpus, i.size.memory_mib);
        i.kind == Kind::Vm || !i.isolation.is_shared() || disk_alone
    })
}

fn kind_in_words(i: &Instance) -> &'static str {
    match i.kind {
        Kind::Container if !i.isolation.is_shared() => {
            "container (pod of OCI containers with a kernel of its own, in a virtual machine)"
        }
        Kind::Vm => "vm (virtual machine with a kernel of its own)",
        Kind::Container => "container (pod of OCI containers on the host's kernel)",
        Kind::System => "system (container with a system of its own)",
    }
}

/// What the node tells: known facts in plain words, further ones as they are.
fn facts(page: &mut Page, i: &Instance) {
    const KNOWN: [(&str, &str); 9] = [
        ("guest_os", "Guest OS"),
        ("acceleration", "Acceleration"),
        ("accelerator", "Accelerator"),
        ("machine_type", "Machine type"),
        ("cpu_model", "CPU model"),
        ("qemu_version", "QEMU"),
        ("pid", "Process"),
        ("host_cpus", "CPUs of host"),
        ("problem", "Problem"),
    ];
    // Told in a table, and as a time.
    const ELSEWHERE: [&str; 2] = ["containers", "started_ms"];
    for (key, label) in KNOWN {
        if let Some(value) =
            i.facts.get(key).filter(|_| !(key == "accelerator" && i.facts.contains_key("acceleration")))
        {
            page.line(label, fact_text(value));
        }
    }
    for (key, value) in &i.facts {
        if !ELSEWHERE.contains(&key.as_str()) && !KNOWN.iter().any(|(known, _)| known == key) {
            let mut label = key.replace('_', " ");
            label[..1].make_ascii_uppercase();
            page.line(&label, fact_text(value));
        }
    }
}

fn fact_text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        serde_json::Value::Array(items) => items.iter().map(fact_text).collect::<Vec<_>>().join(", "),
        serde_json::Value::Object(map) => {
            map.iter().map(|(k, v)| format!("{k}={}", fact_text(v))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn parts(page: &mut Page, i: &Instance) {
    let ports = i.ports.iter().map(|p| {
        vec![
            Cell::text(&p.network.name),
            Cell::addresses(&p.addresses),
            Cell::addresses(&p.floating_ips),
            Cell::text(p.mac),
            Cell::list(p.security_groups.iter().map(|g| &g.name)),
            Cell::maybe(p.rate_mbit.map(|rate| format!("{rate}m"))),
            Cell::text(format!("p{}", &p.id.simple().to_string()[..8])),
            Cell::text(p.id),
        ]
    });
    let device = if i.kind == Kind::Vm || !i.isolation.is_shared() { "TAP ON HOST" } else { "VETH ON HOST" };
    let heads = ["NETWORK", "ADDRESSES", "FLOATING IP", "MAC", "SECURITY GROUPS", "RATE", device, "PORT"];
    page.table("Interfaces", &heads, ports.collect());
    let volumes = i.volumes.iter().map(|v| {
        vec![
            Cell::text(&v.name),
            Cell::text(format!("{} GiB", v.size_gib)),
            Cell::Bytes(v.used_bytes),
            Cell::maybe(v.mount_path.as_ref()),
            Cell::text(&v.serial),
            Cell::text(v.id),
        ]
    });
    page.table("Volumes", &["NAME", "SIZE", "USED", "MOUNTED AT", "SERIAL", "ID"], volumes.collect());
    page.table(
        "Containers",
        &["NAME", "IMAGE", "COMMAND", "RESTART", "CAPABILITIES", "OPTIONS", "STATE"],
        i.containers.iter().map(|c| container_row(c, i)).collect(),
    );
}

fn container_row(c: &Container, i: &Instance) -> Vec<Cell> {
    let words = c.entrypoint.iter().flatten().chain(c.args.iter().flatten());
    let command: Vec<&str> = words.map(String::as_str).collect();
    let added = c.cap_add.iter().map(|cap| format!("+{cap}"));
    let capabilities: Vec<String> = added.chain(c.cap_drop.iter().map(|cap| format!("-{cap}"))).collect();
    let options = [("tty", c.tty), ("stdin", c.stdin_open), ("read-only", c.read_only)];
    let mut options: Vec<String> =
        options.iter().filter(|(_, on)| *on).map(|(word, _)| (*word).to_string()).collect();
    options.extend(c.user.iter().map(|user| format!("user={user}")));
    options.extend(c.tmpfs.iter().map(|path| format!("tmpfs={path}")));
    let told = i.facts.get("containers").and_then(|all| all.as_array());
    let state = told.and_then(|all| all.iter().find(|one| one["name"] == c.name.as_str()));
    vec![
        Cell::text(&c.name),
        Cell::maybe(c.image.as_ref().map(|image| &image.name)),
        Cell::text(if command.is_empty() { "as the image says".to_string() } else { command.join(" ") }),
        Cell::text(restart::to_text(c.restart)),
        Cell::text(if capabilities.is_empty() { "default".to_string() } else { capabilities.join(",") }),
        Cell::list(options),
        Cell::text(state.map_or(String::new(), container_state)),
    ]
}

/// `running, pid 4711`, or `exited, code 1, killed by signal 9, 3 restarts`.
fn container_state(told: &serde_json::Value) -> String {
    let Some(status) = told["status"].as_str() else {
        return fact_text(told);
    };
    let mut words = vec![status.to_string()];
    if let Some(pid) = told["pid"].as_u64().filter(|_| status == "running") {
        words.push(format!("pid {pid}"));
    }
    words.extend(told["exit_code"].as_i64().map(|code| format!("code {code}")));
    words.extend(told["cause"].as_str().filter(|cause| !cause.is_empty()).map(str::to_string));
    words.extend(
        told["restarts"].as_u64().filter(|n| *n > 0).map(|n| wording::counted(n as usize, "restart")),
    );
    words.join(", ")
}

/// Runs a verb.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, verb: Verb) -> Result {
    match verb {
        Verb::List(args) => list(session, &args).await,
        Verb::Show(args) => show(session, &args.name).await,
        Verb::Create(args) => run_command::run(session, *args, false).await,
        Verb::Set(args) => set(session, &args).await,
        Verb::Delete(args) => remove(session, &args).await,
        Verb::Start(args) => power::start(session, &args).await,
        Verb::Stop(args) => power::stop(session, &args).await,
        Verb::Restart(args) => power::restart(session, &args).await,
        Verb::AttachPort(args) => attach_port(session, &args).await,
        Verb::DetachPort(args) => detach_port(session, &args).await,
    }
}

/// `holm ls`.
///
/// # Errors
/// As the server refuses.
pub async fn list(session: &Session, args: &InstanceListArgs) -> Result {
    let query = ListQuery {
        kind: args.kind.clone(),
        phase: args.phase.clone(),
        network: args.network.clone(),
        ..args.list.query()
    };
    let items: Vec<Instance> = session.client.list_all(&query).await?;
    if items.is_empty() && session.printer.format.is_none() && session.stdout_is_terminal {
        session.say("no instances here yet");
        session.next(
            "holm run IMAGE      (`holm image list` shows images, `holm image pull debian:12` gets one)",
        );
        return Ok(());
    }
    session.printer.list(&items)
}

/// `holm info`: the instance, and for people where its disks lie.
///
/// # Errors
/// As the server refuses.
pub async fn show(session: &Session, reference: &str) -> Result {
    let instance: Instance = session.client.get(reference).await?;
    if !matches!(session.printer.format, None | Some(Format::Table | Format::Wide)) {
        return session.printer.one(&instance);
    }
    let mut page = instance.page(session.printer.now);
    // What it uses is told while it runs, and by whoever measures it.
    let id = instance.head.id.to_string();
    if let Some(advice) =
        session.client.advice(Some(&id), None).await.ok().and_then(|all| all.into_iter().next())
    {
        page.line("Uses", advise::sentence(&advice));
    }
    let mut disks = vec![];
    for volume in &instance.volumes {
        // A volume may go between the two looks; its path is told to admins only.
        if let Ok(volume) = session.client.get::<Volume>(&volume.id.to_string()).await
            && let Some(path) = &volume.path
        {
            disks.push(vec![
                Cell::text(&volume.head.name),
                Cell::text(path),
                Cell::maybe(volume.format.map(format_word)),
            ]);
        }
    }
    page.table("Disks on the host", &["VOLUME", "PATH", "FORMAT"], disks);
    output::write(page.text(session.printer.colours).as_bytes())
}

fn format_word(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
    }
}

/// `holm set`.
///
/// # Errors
/// As the server refuses.
pub async fn set(session: &Session, args: &SetArgs) -> Result {
    let changes_keys = !(args.key.is_empty() && args.no_key.is_empty());
    let keypairs = if changes_keys { Some(keys_after(session, args).await?) } else { None };
    let tags = if args.tag.is_empty() { None } else { Some(tags_after(session, args).await?) };
    let request = UpdateInstance {
        name: args.change.name.clone(),
        description: args.change.description.clone(),
        labels: args.change.labels(),
        keypairs,
        autostart: args.autostart,
        schedule: args.schedule.clone().map(|times| Some(times).filter(|times| times != "none")),
        start_after: (!args.start_after.is_empty())
            .then(|| args.start_after.iter().filter(|name| !name.is_empty()).cloned().collect()),
        restart: args.restart,
        grace_s: args.grace,
        remove_on_exit: args.rm,
        tags,
        locked: args.locked,
        flavor: args.flavor.clone(),
        vcpus: args.cpus,
        memory_mib: args.memory,
        disk_gib: args.disk,
        cpu_weight: args.cpu_weight,
        ..UpdateInstance::default()
    };
    noun::refuse_empty(&request)?;
    let mut changed =
        session.client.update::<Instance>(&args.instance, &request, &WaitQuery::default()).await?;
    if changes_keys {
        changed = keys::taken_over(session, &changed.head.id.to_string()).await?;
        keys::warn(session, &changed);
    }
    let Some(has) = until_then(&changed) else {
        return noun::tell(session, &changed, "is changed");
    };
    session.say(format!("instance {} is changed; it has {has}", changed.head.name));
    if waits_for_restart(&changed) {
        session.next(format!("holm restart {}", changed.head.name));
    }
    session.printer.made(&changed)
}

/// The keys that an instance is to let in: those it does, with those that are named and without those that are to go.
async fn keys_after(session: &Session, args: &SetArgs) -> Result<Vec<String>> {
    let mut keys = session.client.get::<Instance>(&args.instance).await?.keypairs;
    for gone in &args.no_key {
        let before = keys.len();
        keys.retain(|key| key != gone);
        if keys.len() == before {
            let message = format!("{} has no key {gone:?}", args.instance);
            let has = if keys.is_empty() {
                "it has none".to_string()
            } else {
                format!("it has {}", keys.join(", "))
            };
            return Err(Failure::usage(message).hint(has));
        }
    }
    for key in &args.key {
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    Ok(keys)
}

/// The tags that an instance is to have: those it has, unless an empty one is named, and those that are named.
async fn tags_after(session: &Session, args: &SetArgs) -> Result<BTreeSet<Tag>> {
    let anew = args.tag.iter().any(String::is_empty);
    let mut tags =
        if anew { BTreeSet::new() } else { session.client.get::<Instance>(&args.instance).await?.tags };
    for text in args.tag.iter().filter(|text| !text.is_empty()) {
        tags.insert(text.parse().map_err(|error| Failure::usage(format!("tag {text:?}: {error}")))?);
    }
    Ok(tags)
}

/// `holm rm`.
///
/// # Errors
/// As the server refuses.
pub async fn remove(session: &Session, args: &RemoveArgs) -> Result {
    let mut names = vec![];
    let mut lost = vec![];
    for name in &args.names {
        match session.client.get::<Instance>(name).await {
            Ok(instance) => {
                lost.extend(data_lost_with(session, &instance).await?);
                names.push(name.clone());
            }
            Err(error) if args.force && error.code() == model::error::Code::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut question = format!("Delete {}: {}", wording::counted(names.len(), "instance"), names.join(", "));
    if !lost.is_empty() {
        question.push_str(&format!(", and with it the data on {}", lost.join(", ")));
    }
    if names.len() > 1 || !lost.is_empty() {
        session.confirm(args.yes || args.force, &(question + "?"))?;
    }
    if args.force {
        for name in &names {
            // What does not run cannot be killed, and goes all the same.
            let _ = session.client.act(name, api::client::Verb::Kill, &WaitQuery::default()).await;
        }
    }
    noun::delete_all::<Instance>(session, &names, &args.wait).await
}

/// Volumes beside the root disk that go with an instance and hold data.
async fn data_lost_with(session: &Session, instance: &Instance) -> Result<Vec<String>> {
    let own_root = usize::from(instance.kind == Kind::Vm) + usize::from(instance.rescue.is_some());
    let mut lost = vec![];
    for volume in
        instance.volumes.iter().skip(own_root).filter(|v| v.used_bytes > super::volume::EMPTY_BYTES_MAX)
    {
        let volume: Volume = session.client.get(&volume.id.to_string()).await?;
        if volume.delete_with_instance {
            lost.push(format!("{} ({})", volume.head.name, wording::bytes(volume.used_bytes)));
        }
    }
    Ok(lost)
}

async fn attach_port(session: &Session, args: &AttachPortArgs) -> Result {
    let request = AttachPort {
        network: args.network.clone(),
        subnet: args.subnet.clone(),
        address: args.address,
        port: args.port.clone(),
        security_groups: (!args.security_group.is_empty()).then(|| args.security_group.clone()),
        aliases: args.alias.clone(),
    };
    if request == AttachPort::default() {
        return Err(Failure::usage("where to?").hint("name --network, --subnet or --port"));
    }
    let instance = session.client.attach_port(&args.instance, &request, &WaitQuery::default()).await?;
    finish(session, instance, &args.wait, "has a further interface").await
}

async fn detach_port(session: &Session, args: &DetachPortArgs) -> Result {
    let instance = session.client.detach_port(&args.instance, &args.port, &WaitQuery::default()).await?;
    finish(session, instance, &args.wait, "has an interface less").await
}

/// Waits until what was plugged in or out is in the guest's hands, and tells.
///
/// # Errors
/// As the wait ends.
pub async fn finish(session: &Session, instance: Instance, args: &WaitArgs, what: &str) -> Result {
    let name = instance.head.name.clone();
    let instance = if args.no_wait {
        instance
    } else {
        wait::settle::<Instance>(session, &instance.head.id.to_string(), &name, None, args).await?
    };
    noun::tell(session, &instance, what)
}
