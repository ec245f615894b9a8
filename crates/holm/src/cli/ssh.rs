//! `holm ssh`: the system's ssh, led to the instance.
//!
//! ```text
//!   root on the host of the instance   ──► through the network's own namespace: works without a floating IP
//!   anyone else                        ──► the floating IP
//! ```
//! Host keys are kept in a file of holm's own, under the instance's id: addresses move between instances and are used
//! again, ids never are.

use super::{
    completion,
    connection::{ConnectionArgs, SOCKET_DEFAULT},
    failure::{Failure, Result},
    session::Session,
};
use api::v1::types::instance::{Instance, InstancePort};
use model::{
    dataplane::namespace::Place,
    error::Code,
    id::NetworkId,
    instance::{Kind, phase::Phase},
};
use std::{
    ffi::OsString,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Time for one attempt to connect to the guest's port.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts while the guest starts.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// When the user is told that we wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where to log in.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  holm ssh db
  holm ssh admin@db -i ~/.ssh/work -- uptime
  holm ssh db -L 8080:localhost:80")]
pub struct SshArgs {
    /// Instance, or USER@INSTANCE
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub target: String,
    /// Program and arguments to run instead of a shell
    #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// User [default: the one that the image lets in, or root]
    #[arg(long, short = 'l', value_name = "USER")]
    pub user: Option<String>,
    /// File with the private key
    #[arg(long, short, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Port of the guest's SSH server
    #[arg(long, short, value_name = "PORT", default_value_t = 22)]
    pub port: u16,
    /// Forward a port of this machine: [ADDRESS:]PORT:HOST:PORT (may be given several times)
    #[arg(short = 'L', value_name = "FORWARD")]
    pub forward: Vec<String>,
    /// Option for ssh, KEY=VALUE as in ssh_config (may be given several times)
    #[arg(long, value_name = "KEY=VALUE")]
    pub option: Vec<String>,
    /// How long to wait for the guest's SSH server while it starts (on its host)
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = super::wording::parse_seconds)]
    pub timeout: u64,
    /// Print the ssh command instead of running it
    #[arg(long)]
    pub print: bool,
}

/// How ssh reaches the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Straight to an address.
    Address(IpAddr),
    /// From inside the namespace of the instance's network, on this host.
    Namespace {
        /// Handle of the namespace.
        handle: PathBuf,
        /// The guest's address there.
        address: IpAddr,
    },
}

/// Runs the command: becomes ssh.
///
/// # Errors
/// There is no way to the instance, or no ssh.
pub async fn run(session: &Session, connection: &ConnectionArgs, args: &SshArgs) -> Result {
    let (user, name) = match args.target.rsplit_once('@') {
        Some((user, name)) => (Some(user.to_string()), name),
        None => (args.user.clone(), args.target.as_str()),
    };
    let instance: Instance = session.client.get(name).await?;
    refuse_unreachable(&instance)?;
    let directory = run_directory(connection);
    let is_root = sys::process::effective_uid() == 0;
    let way = find_way(&instance, directory.as_deref().filter(|_| is_root))
        .ok_or_else(|| no_way(&instance, directory.is_some() && !is_root))?;
    let user = user.or_else(|| instance.login.clone()).unwrap_or_else(|| "root".into());
    let arguments = arguments(args, &instance, &way, &user, &known_hosts()?)?;
    if args.print {
        let words: Vec<String> = arguments.iter().map(|word| quoted(&word.to_string_lossy())).collect();
        return super::output::write(format!("ssh {}\n", words.join(" ")).as_bytes());
    }
    let error = std::process::Command::new("ssh").args(&arguments).exec();
    let failure = Failure::local("ssh cannot be run", &error);
    Err(if error.kind() == std::io::ErrorKind::NotFound {
        failure.hint("install it: `apt install openssh-client`")
    } else {
        failure
    })
}

fn refuse_unreachable(instance: &Instance) -> Result {
    let name = &instance.head.name;
    if instance.kind == Kind::Container {
        return Err(Failure::usage(format!("{name} is a container and needs no SSH"))
            .hint(format!("`holm exec -it {name} -- sh` gives a shell in it")));
    }
    if instance.phase != Phase::Running {
        let hint = if instance.phase == Phase::Paused { "resume" } else { "start" };
        return Err(Failure::new(Code::Conflict, format!("{name} is {}, not running", instance.phase))
            .hint(format!("`holm {hint} {name}`, or look at it: `holm info {name}`")));
    }
    Ok(())
}

/// The daemon's run directory, if it is on this machine: where its socket is.
fn run_directory(connection: &ConnectionArgs) -> Option<PathBuf> {
    if connection.host.is_some() {
        return None;
    }
    let socket = connection.socket.clone().unwrap_or_else(|| SOCKET_DEFAULT.into());
    socket.parent().map(Path::to_path_buf)
}

/// The best way: a namespace of this host (`run` is given to root alone), else a floating IP.
pub fn find_way(instance: &Instance, run: Option<&Path>) -> Option<Way> {
    let of_port = |port: &InstancePort| {
        let handle = run?.join("netns").join(Place::Network(NetworkId(port.network.id)).handle_name()?);
        if !handle.exists() {
            return None;
        }
        let address = port.addresses.iter().find(|a| a.is_ipv4()).or(port.addresses.first())?;
        Some(Way::Namespace { handle, address: *address })
    };
    instance
        .ports
        .iter()
        .find_map(of_port)
        .or_else(|| instance.floating_ips.first().copied().map(Way::Address))
}

fn no_way(instance: &Instance, could_be_root: bool) -> Failure {
    let name = &instance.head.name;
    let mut hint = format!(
        "give it a floating IP: `holm floating-ip create --to {name}`, and let SSH in: \
         `holm security-group rule add GROUP tcp 22 --from YOUR-ADDRESS`"
    );
    if could_be_root {
        hint = format!("on this host root needs no floating IP: `sudo holm ssh {name}`\n{hint}");
    }
    hint.push_str(&format!("\n`holm console {name}` works without a network"));
    Failure::new(Code::Unavailable, format!("there is no way to {name} from here")).hint(hint)
}

/// The file of host keys, in a directory that is made if need be.
fn known_hosts() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let base = std::env::var_os("XDG_STATE_HOME").map_or_else(|| home.join(".local/state"), PathBuf::from);
    let directory = base.join("holm");
    std::fs::create_dir_all(&directory)
        .map_err(|e| Failure::local(format!("cannot make {}", directory.display()), &e))?;
    Ok(directory.join("known_hosts"))
}

fn arguments(
    args: &SshArgs,
    instance: &Instance,
    way: &Way,
    user: &str,
    known_hosts: &Path,
) -> Result<Vec<OsString>> {
    let mut words: Vec<OsString> = vec![];
    let mut option = |text: String| words.extend(["-o".into(), text.into()]);
    option(format!("HostKeyAlias=holm-{}", instance.head.id));
    option(format!("UserKnownHostsFile={}", known_hosts.display()));
    option("StrictHostKeyChecking=accept-new".into());
    option("CheckHostIP=no".into());
    option("LogLevel=ERROR".into());
    option(format!("ConnectTimeout={}", args.timeout));
    let address = match way {
        Way::Address(address) => *address,
        Way::Namespace { handle, address } => {
            let program =
                std::env::current_exe().map_err(|e| Failure::local("cannot find holm's own program", &e))?;
            let words = [program.as_path(), Path::new("ssh-connect"), handle.as_path()]
                .map(|p| quoted(&p.to_string_lossy()));
            option(format!(
                "ProxyCommand={} {address} {} {}",
                words.join(" ").replace('%', "%%"),
                args.port,
                args.timeout
            ));
            *address
        }
    };
    for text in &args.option {
        option(text.clone());
    }
    if let Some(identity) = &args.identity {
        words.extend(["-i".into(), identity.into(), "-o".into(), "IdentitiesOnly=yes".into()]);
    }
    for forward in &args.forward {
        words.extend(["-L".into(), forward.into()]);
    }
    words.extend([
        "-p".into(),
        args.port.to_string().into(),
        "-l".into(),
        user.into(),
        address.to_string().into(),
    ]);
    // ssh joins the words with spaces for the shell at the other end: quoted, they arrive as they were typed.
    match args.command.as_slice() {
        [] => {}
        [one] => words.extend(["--".into(), one.into()]),
        several => {
            words.push("--".into());
            words.extend(several.iter().map(|word| OsString::from(quoted(word))));
        }
    }
    Ok(words)
}

/// A word for a shell (POSIX, section 2.2.2).
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A connection from inside a namespace, for ssh's ProxyCommand.
#[derive(Debug, Clone, clap::Args)]
pub struct ConnectArgs {
    /// Handle of the namespace.
    pub handle: PathBuf,
    /// The guest's address.
    pub address: IpAddr,
    /// The guest's port.
    pub port: u16,
    /// Seconds to wait for an answer.
    pub timeout_s: u64,
}

/// Joins standard input and output with a TCP connection made inside a namespace. Blocks until both are at their end.
///
/// # Errors
/// The namespace is not there, or nobody listens.
pub fn connect(args: &ConnectArgs) -> Result {
    let namespace = sys::netns::NetNs::open(&args.handle)
        .map_err(|e| Failure::new(Code::Internal, format!("{e}: {}", e.source)))?;
    let target = SocketAddr::new(args.address, args.port);
    let stream = namespace
        .run(|| connect_patiently(target, Duration::from_secs(args.timeout_s)))
        .and_then(|connected| connected)
        .map_err(|e| {
            Failure::local(format!("nobody answers at {target}"), &e)
                .hint("is its SSH server running? `holm console` shows the guest")
        })?;
    let broke = |e: std::io::Error| Failure::local(format!("the connection to {target} broke"), &e);
    let _ = stream.set_nodelay(true);
    let mut up = stream.try_clone().map_err(broke)?;
    // Ends with standard input; ssh closes it when it ends, and the process ends with the connection in any case.
    std::thread::spawn(move || {
        let _ = pump(&mut std::io::stdin().lock(), &mut up);
        let _ = up.shutdown(std::net::Shutdown::Write);
    });
    let mut down = stream;
    pump(&mut down, &mut std::io::stdout().lock()).map_err(broke)
}

/// Connects, again and again until a guest that starts has come so far.
fn connect_patiently(target: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream> {
    let began = Instant::now();
    let mut told = false;
    loop {
        let error = match TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if began.elapsed() >= timeout {
            return Err(error);
        }
        if !told && began.elapsed() >= PATIENCE {
            eprintln!("waiting for the SSH server of the guest ({error})");
            told = true;
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
}

/// Copies and flushes at once: a session is made of single keys.
fn pump(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).and_then(|()| to.flush())?,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell_arrive_as_typed() {
        for (word, text) in
            [("ls", "ls"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("", "''"), ("$HOME", "'$HOME'")]
        {
            assert_eq!(quoted(word), text);
        }
    }
}
