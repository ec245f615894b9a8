//! The command line: every noun and verb of the API, and short verbs for what is done every day.
//!
//! ```text
//!   cli.rs        what can be typed                          noun.rs      list, show and delete of every noun
//!   cli/NOUN.rs   one file per noun: options, columns, verbs  wait.rs      waiting with one line of progress
//!   run, power, ssh, console, stream, logs   daily verbs      output.rs    tables, JSON, YAML, CSV, names
//!   doctor        looks at the machine, needs no daemon       failure.rs   errors, hints, exit codes
//! ```
//! It speaks to the daemon by the public API alone, and decides nothing that the API decides. Data goes to stdout,
//! talk to stderr.

mod address_scope;
mod advise;
mod app;
mod build;
mod completion;
mod connection;
mod console;
mod docker;
mod doctor;
mod event;
mod failure;
mod flavor;
mod floating_ip;
mod health;
mod image;
mod input;
mod instance;
mod keypair;
mod keys;
mod kube;
mod logs;
mod network;
mod node;
mod noun;
mod openstack;
mod operation;
mod output;
mod port;
mod power;
mod project;
mod publish;
mod quota;
mod raw;
mod renew;
mod router;
mod run;
mod security_group;
mod server_group;
mod session;
mod snapshot;
mod ssh;
mod stream;
mod subnet;
mod subnet_pool;
mod token;
mod version;
mod volume;
mod wait;
pub(crate) mod wording;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use connection::ConnectionArgs;
use failure::{Failure, Result};
use jiff::Timestamp;
use output::{Format, Printer};
use session::{Session, colours_on};
use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

/// A private cloud on one Linux machine: virtual machines and containers, equal on one network
#[derive(Debug, Parser)]
#[command(
    name = "holm",
    version,
    about,
    arg_required_else_help = true,
    subcommand_required = true,
    propagate_version = false,
    max_term_width = 110,
    after_help = "Every day: run, ls, info, start, stop, rm, ssh, console, exec, logs. `holm doctor` looks at this machine first.\n\
          As with docker: ps, images, pull, push, build, inspect, cp, stats, compose and the others; `alias docker=holm` works.\n\
          Names, ids and unique beginnings of ids are understood everywhere. --help tells more than -h.\n\
          Exit codes: 0 done, 2 wrong input, 3 not found, 4 in the way, 5 no room or quota, 6 not allowed, 7 too late,\n\
          8 holm does not answer, 9 not possible here, 1 all else; of programs that ran inside: theirs."
)]
pub struct Line<C: Subcommand> {
    #[command(subcommand)]
    command: C,
    /// Form of the output: table, wide, json, yaml, csv or name; of what is saved or exported: the file
    #[arg(
        long = "output",
        short = 'o',
        global = true,
        value_name = "FORM",
        help = "Form of the output: table, wide, json, yaml, csv or name",
        add = completion::forms()
    )]
    output: Option<String>,
    /// Say nothing but errors and what was asked for
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The command line.
pub type Cli = Line<Command>;

/// What people type every day.
#[derive(Debug, Subcommand)]
pub enum Daily {
    /// Run an image: a virtual machine or a container, as the image says
    #[command(disable_help_flag = true)]
    Run(Box<run::RunArgs>),
    /// Make an instance without starting it
    #[command(disable_help_flag = true)]
    Create(Box<run::RunArgs>),
    /// List instances
    Ls(instance::InstanceListArgs),
    /// Show all about an instance
    #[command(visible_alias = "show")]
    Info(instance::InfoArgs),
    /// Start instances
    Start(power::PowerArgs),
    /// Stop instances: ask the guest, pull the plug after its grace time
    Stop(power::StopArgs),
    /// Stop instances by pulling the plug
    Kill(power::PowerArgs),
    /// Stop and start instances again
    #[command(visible_alias = "reboot")]
    Restart(power::RestartArgs),
    /// Freeze instances
    Pause(power::PowerArgs),
    /// Put VMs to sleep: their memory goes to disk, and they go on where they were, after a restart of the host too
    Suspend(power::PowerArgs),
    /// Let paused or suspended instances go on
    Resume(power::PowerArgs),
    /// Delete instances
    #[command(visible_alias = "delete")]
    Rm(instance::RemoveArgs),
    /// Change an instance
    Set(instance::SetArgs),
    /// Try another flavor, then keep it or take it back
    Resize(renew::ResizeArgs),
    /// Begin anew from an image, with the same name, addresses and further volumes
    Rebuild(renew::RebuildArgs),
    /// Start a VM that does not come up from another image, with its own root disk as the second one
    Rescue(renew::RescueArgs),
    /// End a rescue: start from its own root disk again
    Unrescue(power::PowerArgs),
    /// Refuse deletion and power changes of instances
    Lock(renew::LockArgs),
    /// Allow them again
    Unlock(renew::UnlockArgs),
    /// Log in to a virtual machine
    Ssh(ssh::SshArgs),
    /// Open the console of an instance
    Console(console::ConsoleArgs),
    /// Show what an instance wrote
    Logs(logs::LogsArgs),
    /// Build an image of containers from a Dockerfile
    Build(Box<build::BuildArgs>),
    /// Run a program in a container
    Exec(stream::ExecArgs),
    /// Join the terminal or streams of a container's own program
    Attach(stream::AttachArgs),
    /// Lead ports of this machine to an instance, while it runs
    Publish(publish::PublishArgs),
    /// Take published ports back
    Unpublish(publish::UnpublishArgs),
    /// List all that can be reached from outside, and from where
    Exposed(publish::ExposedArgs),
    /// Show what instances use, and which would do with less
    Advise(advise::AdviseArgs),
    /// Show what happened, and with -f what happens
    Events(event::EventsArgs),
    /// Show or set how much a project may have
    Quota(quota::QuotaArgs),
}

/// All commands. Those of the parts that are enumerations of their own can be read without the others, see [`read`].
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Daily(Daily),

    /// Virtual machines, containers and system containers
    #[command(subcommand)]
    Instance(instance::Verb),
    /// What instances start from
    #[command(subcommand)]
    Image(image::Verb),
    /// Named sizes
    #[command(subcommand)]
    Flavor(flavor::Verb),
    /// SSH public keys
    #[command(subcommand)]
    Keypair(keypair::Verb),
    /// Networks
    #[command(subcommand)]
    Network(network::Verb),
    /// Ranges of addresses of networks
    #[command(subcommand)]
    Subnet(subnet::Verb),
    /// Ranges that subnets are cut from
    #[command(subcommand)]
    SubnetPool(subnet_pool::Verb),
    /// Spaces in which addresses are unique
    #[command(subcommand)]
    AddressScope(address_scope::Verb),
    /// What joins networks, and leads outside
    #[command(subcommand)]
    Router(router::Verb),
    /// Where instances meet networks
    #[command(subcommand)]
    Port(port::Verb),
    /// What traffic passes
    #[command(subcommand, visible_alias = "sg")]
    SecurityGroup(security_group::Verb),
    /// Outside addresses that move between instances
    #[command(subcommand, visible_alias = "fip")]
    FloatingIp(floating_ip::Verb),
    /// Disks of virtual machines, directories of containers
    #[command(subcommand)]
    Volume(volume::Verb),
    /// What volumes held at one moment
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
    /// Instances that are to be kept on one host, or on different ones
    #[command(subcommand)]
    ServerGroup(server_group::Verb),
    /// Tenants
    #[command(subcommand)]
    Project(project::Verb),
    /// Who asked for what
    #[command(subcommand)]
    Operation(operation::Verb),
    /// What happened
    #[command(subcommand)]
    Event(event::Verb),
    /// Hosts
    #[command(subcommand)]
    Node(node::Verb),
    /// Who may come in from elsewhere
    #[command(subcommand)]
    Token(token::Verb),

    #[command(flatten)]
    Docker(docker::Verb),

    /// Programs that everybody knows, by one command each
    #[command(subcommand)]
    App(app::Verb),

    /// Files of Kubernetes: play them, take down what they made, write one
    #[command(subcommand)]
    Kube(kube::Verb),

    /// How OpenStack's clients get in
    #[command(subcommand)]
    Openstack(openstack::Verb),

    #[command(flatten)]
    Engine(Engine),
    /// Look at this machine: can it run holm, and how well? Changes nothing, needs no daemon
    Doctor(doctor::DoctorArgs),
    /// Take holm off this machine and put it back as it was; the data stays unless --data is given
    Uninstall(crate::uninstall::Options),
    /// Show the versions of this program and of the daemon
    Version,
    /// Print the completion for a shell
    Completion(completion::CompletionArgs),
    /// Call the API as it is
    Api(raw::ApiArgs),
    /// A connection made inside a network's namespace, for `holm ssh`
    #[command(hide = true)]
    SshConnect(ssh::ConnectArgs),
}

/// The daemon.
#[derive(Debug, Subcommand)]
pub enum Engine {
    /// Run the daemon on this machine
    Serve(Box<crate::serve::Options>),
}

impl From<Daily> for Command {
    fn from(verb: Daily) -> Self {
        Self::Daily(verb)
    }
}

impl From<docker::Verb> for Command {
    fn from(verb: docker::Verb) -> Self {
        Self::Docker(verb)
    }
}

impl From<Engine> for Command {
    fn from(verb: Engine) -> Self {
        Self::Engine(verb)
    }
}

/// Longest wait of one call in seconds.
fn wait_s_max() -> u32 {
    api::v1::types::list::WAIT_S_MAX
}

/// Reads the command line, runs the command and tells how it ended.
pub fn run() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let cli = read();
    let colours = colours_on(&std::io::stderr());
    if let Command::Engine(Engine::Serve(options)) = cli.command {
        return crate::serve::main(*options);
    }
    if let Command::Uninstall(options) = cli.command {
        return crate::uninstall::main(&options);
    }
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(colours);
            ExitCode::from(failure.exit)
        }
    }
}

/// Reads the arguments. To describe all commands takes longer than many of them do, and megabytes of memory; so where the
/// first word is one of a part's, that part alone is described.
fn read() -> Cli {
    let word = std::env::args_os().nth(1).and_then(|word| word.into_string().ok());
    let read = word.and_then(|word| {
        part::<Daily>(&word).or_else(|| part::<docker::Verb>(&word)).or_else(|| part::<Engine>(&word))
    });
    // What a part cannot read is read again by the whole, which knows best what to say of it.
    read.unwrap_or_else(Cli::parse)
}

fn part<C: Subcommand + Into<Command>>(word: &str) -> Option<Cli> {
    if !C::has_subcommand(word) {
        return None;
    }
    let Line { command, output, quiet, connection } = Line::<C>::try_parse().ok()?;
    Some(Line { command: command.into(), output, quiet, connection })
}

/// What `-o` means: the form of the output, or the file that `save` and `export` write.
fn wanted_output(cli: &Cli) -> Result<(Option<Format>, Option<PathBuf>)> {
    match (&cli.output, &cli.command) {
        (Some(file), Command::Docker(docker::Verb::Save(_) | docker::Verb::Export(_))) => {
            Ok((None, Some(PathBuf::from(file))))
        }
        (Some(word), _) => {
            let wrong = |_| {
                Failure::usage(format!("invalid value {word:?} for --output"))
                    .hint("the forms are table, wide, json, yaml, csv and name")
            };
            Format::from_str(word, false).map_err(wrong).map(|form| (Some(form), None))
        }
        (None, _) => Ok((None, None)),
    }
}

/// Commands that need no daemon are run at once; the others in a small runtime.
fn dispatch(cli: Cli) -> Result {
    let (format, file) = wanted_output(&cli)?;
    match cli.command {
        Command::SshConnect(args) => ssh::connect(&args),
        Command::Completion(args) => completion::print(&args),
        Command::Doctor(args) => doctor::run(&args, format, &cli.connection),
        command => {
            let session = Session {
                client: cli.connection.client(std::env::var("HOLM_TOKEN").ok())?,
                printer: Printer { format, colours: colours_on(&std::io::stdout()), now: Timestamp::now() },
                quiet: cli.quiet,
                stderr_is_terminal: std::io::stderr().is_terminal(),
                stdin_is_terminal: std::io::stdin().is_terminal(),
                stdout_is_terminal: std::io::stdout().is_terminal(),
                colours: colours_on(&std::io::stderr()),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| Failure::local("cannot start", &e))?;
            let outcome = runtime.block_on(act(&session, &cli.connection, command, file));
            // A thread may still wait for a key that nobody will press.
            runtime.shutdown_background();
            outcome
        }
    }
}

async fn act(
    session: &Session,
    connection: &ConnectionArgs,
    command: Command,
    file: Option<PathBuf>,
) -> Result {
    match command {
        Command::Daily(verb) => act_daily(session, connection, verb).await,
        Command::Version => version::run(session).await,
        Command::Api(args) => raw::run(session, &args).await,
        Command::Docker(verb) => docker::run(session, connection, verb, file).await,
        Command::App(verb) => app::run(session, connection.project.as_deref(), verb).await,
        Command::Kube(verb) => kube::run(session, connection.project.as_deref(), verb).await,
        Command::Openstack(verb) => openstack::run(session, connection, verb).await,
        noun => act_on_noun(session, noun).await,
    }
}

async fn act_daily(session: &Session, connection: &ConnectionArgs, verb: Daily) -> Result {
    match verb {
        Daily::Run(args) => run::run(session, *args, true).await,
        Daily::Create(args) => run::run(session, *args, false).await,
        Daily::Ls(args) => instance::list(session, &args).await,
        Daily::Info(args) => instance::show(session, &args.name).await,
        Daily::Start(args) => power::start(session, &args).await,
        Daily::Stop(args) => power::stop(session, &args).await,
        Daily::Kill(args) => power::kill(session, &args).await,
        Daily::Restart(args) => power::restart(session, &args).await,
        Daily::Pause(args) => power::pause(session, &args).await,
        Daily::Suspend(args) => power::suspend(session, &args).await,
        Daily::Resume(args) => power::resume(session, &args).await,
        Daily::Rm(args) => instance::remove(session, &args).await,
        Daily::Set(args) => instance::set(session, &args).await,
        Daily::Resize(args) => renew::resize(session, &args).await,
        Daily::Rebuild(args) => renew::rebuild(session, &args).await,
        Daily::Rescue(args) => renew::rescue(session, &args).await,
        Daily::Unrescue(args) => power::unrescue(session, &args).await,
        Daily::Lock(args) => renew::lock(session, &args).await,
        Daily::Unlock(args) => renew::unlock(session, &args).await,
        Daily::Ssh(args) => ssh::run(session, connection, &args).await,
        Daily::Console(args) => console::run(session, &args).await,
        Daily::Logs(args) => logs::run(session, &args).await,
        Daily::Build(args) => build::run(session, &args).await,
        Daily::Exec(args) => stream::exec(session, &args).await,
        Daily::Attach(args) => stream::attach(session, &args).await,
        Daily::Publish(args) => publish::publish(session, &args).await,
        Daily::Unpublish(args) => publish::unpublish(session, &args).await,
        Daily::Exposed(args) => publish::exposed(session, &args).await,
        Daily::Events(args) => event::events(session, &args).await,
        Daily::Advise(args) => advise::run(session, &args).await,
        Daily::Quota(args) => quota::run(session, args).await,
    }
}

async fn act_on_noun(session: &Session, command: Command) -> Result {
    match command {
        Command::Instance(verb) => instance::run(session, verb).await,
        Command::Image(verb) => image::run(session, verb).await,
        Command::Flavor(verb) => flavor::run(session, verb).await,
        Command::Keypair(verb) => keypair::run(session, verb).await,
        Command::Network(verb) => network::run(session, verb).await,
        Command::Subnet(verb) => subnet::run(session, verb).await,
        Command::SubnetPool(verb) => subnet_pool::run(session, verb).await,
        Command::AddressScope(verb) => address_scope::run(session, verb).await,
        Command::Router(verb) => router::run(session, verb).await,
        Command::Port(verb) => port::run(session, verb).await,
        Command::SecurityGroup(verb) => security_group::run(session, verb).await,
        Command::FloatingIp(verb) => floating_ip::run(session, verb).await,
        Command::Volume(verb) => volume::run(session, verb).await,
        Command::Snapshot(verb) => snapshot::run(session, verb).await,
        Command::ServerGroup(verb) => server_group::run(session, verb).await,
        Command::Project(verb) => project::run(session, verb).await,
        Command::Operation(verb) => operation::run(session, verb).await,
        Command::Event(verb) => event::run(session, verb).await,
        Command::Node(verb) => node::run(session, verb).await,
        Command::Token(verb) => token::run(session, verb).await,
        other => unreachable!("{other:?} is dispatched before"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_holds_together() {
        Cli::command().debug_assert();
    }

    /// What a refusal names is a command that there is.
    #[test]
    fn commands_that_list_nouns_are_there() {
        use control::resolve::{Noun, list_command};
        fn check<R: Noun>() {
            let command = list_command::<R>().unwrap_or_else(|| panic!("{} has no command", R::WORD));
            let read = Cli::try_parse_from(command.split(' '));
            assert!(
                read.is_ok(),
                "{command}: {}",
                read.err().map(|error| error.to_string()).unwrap_or_default()
            );
        }
        check::<model::address_scope::AddressScope>();
        check::<model::deployment::Deployment>();
        check::<model::flavor::Flavor>();
        check::<model::floating_ip::FloatingIp>();
        check::<model::image::Image>();
        check::<model::instance::Instance>();
        check::<model::keypair::Keypair>();
        check::<model::network::Network>();
        check::<model::port::Port>();
        check::<model::project::Project>();
        check::<model::router::Router>();
        check::<model::security_group::SecurityGroup>();
        check::<model::server_group::ServerGroup>();
        check::<model::snapshot::Snapshot>();
        check::<model::subnet::Subnet>();
        check::<model::subnet_pool::SubnetPool>();
        check::<model::volume::Volume>();
        assert_eq!(list_command::<model::volume_type::VolumeType>(), None);
    }
}
