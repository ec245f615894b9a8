//! `holm compose`: docker's compose, as it is installed, against holm.

use crate::cli::{
    connection::{ConnectionArgs, SOCKET_DEFAULT},
    failure::Failure,
};
use model::error::Code;
use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where distributions put docker's plugins.
const PLUGINS: [&str; 4] = [
    "/usr/libexec/docker/cli-plugins/docker-compose",
    "/usr/lib/docker/cli-plugins/docker-compose",
    "/usr/local/lib/docker/cli-plugins/docker-compose",
    "/usr/local/libexec/docker/cli-plugins/docker-compose",
];

/// What compose is told.
#[derive(Debug, Clone, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "Runs docker's compose plugin (or docker-compose) with holm's socket: `holm compose up -d`."
)]
pub struct ComposeArgs {
    /// Options and commands of compose
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// Becomes compose. Returns only with the reason why it cannot: it is not here, or holm is elsewhere.
pub fn run(args: &ComposeArgs, connection: &ConnectionArgs) -> Failure {
    if connection.host.is_some() {
        return Failure::new(Code::Unsupported, "compose speaks to a socket, and this holm is elsewhere")
            .hint("run it on the machine of that holm");
    }
    let own = connection.socket.clone().unwrap_or_else(|| PathBuf::from(SOCKET_DEFAULT));
    let socket =
        std::env::var_os("HOLM_DOCKER").map_or_else(|| own.with_file_name("docker.sock"), PathBuf::from);
    let Some(mut command) = found() else {
        return Failure::new(Code::Unsupported, "docker's compose is not installed")
            .hint("install it: `apt install docker-compose`, or the plugin docker-compose-plugin of docker's packages");
    };
    command.args(&args.arguments).env("DOCKER_HOST", format!("unix://{}", socket.display()));
    command.env_remove("DOCKER_CONTEXT");
    Failure::local("cannot run docker's compose", &command.exec())
}

/// The plugin itself, which runs alone as well.
fn found() -> Option<Command> {
    let home =
        std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker/cli-plugins/docker-compose"));
    let plugins = home.into_iter().chain(PLUGINS.iter().map(PathBuf::from));
    if let Some(plugin) = plugins.into_iter().find(|path| path.is_file()) {
        return Some(Command::new(plugin));
    }
    let mut asked = Command::new("docker-compose");
    let is_there =
        asked.arg("version").stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).status();
    is_there.is_ok_and(|status| status.success()).then(|| Command::new("docker-compose"))
}
