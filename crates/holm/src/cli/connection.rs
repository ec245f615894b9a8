//! Which holm a command speaks to: the local socket, or one elsewhere by TLS with a token and a pinned certificate.

use super::failure::{Failure, Result};
use api::client::{Client, Trust};
use std::path::PathBuf;

/// The daemon's socket unless told otherwise.
pub const SOCKET_DEFAULT: &str = "/run/holm/holm.sock";

/// Options of every command that say where holm is.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Project to work in, by name or id [default: the caller's own]
    #[arg(long, global = true, env = "HOLM_PROJECT", value_name = "PROJECT", hide_short_help = true, hide_env_values = true,
          add = super::completion::names("projects"))]
    pub project: Option<String>,
    /// Unix socket of the daemon [default: /run/holm/holm.sock]
    #[arg(
        long,
        global = true,
        env = "HOLM_SOCKET",
        value_name = "PATH",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub socket: Option<PathBuf>,
    /// A holm elsewhere, like https://cloud.example:7788; needs a token (HOLM_TOKEN or --token-file)
    #[arg(
        long,
        global = true,
        env = "HOLM_HOST",
        value_name = "URL",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub host: Option<String>,
    /// File with the access token; instead of the variable HOLM_TOKEN
    #[arg(
        long,
        global = true,
        env = "HOLM_TOKEN_FILE",
        value_name = "FILE",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub token_file: Option<PathBuf>,
    /// SHA-256 fingerprint of the certificate that the holm elsewhere must show
    #[arg(
        long,
        global = true,
        env = "HOLM_FINGERPRINT",
        value_name = "HEX",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub fingerprint: Option<String>,
    /// PEM file of the CA that signed its certificate, instead of a fingerprint
    #[arg(
        long,
        global = true,
        env = "HOLM_CA_FILE",
        value_name = "FILE",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub ca_file: Option<PathBuf>,
}

impl ConnectionArgs {
    /// The client. `token` is the value of HOLM_TOKEN. Connects to nothing yet.
    ///
    /// # Errors
    /// The options do not go together, or a file cannot be read.
    pub fn client(&self, token: Option<String>) -> Result<Client> {
        let mut client = match &self.host {
            Some(host) => self.remote(host, token)?,
            None => Client::unix(self.socket.clone().unwrap_or_else(|| SOCKET_DEFAULT.into())),
        };
        if let Some(project) = &self.project {
            client = client.with_project(project);
        }
        Ok(client)
    }

    fn remote(&self, host: &str, token: Option<String>) -> Result<Client> {
        if host.starts_with("http://") {
            return Err(Failure::usage(format!("{host} would show the token to everyone on the way"))
                .hint("holm listens with TLS: write https://"));
        }
        let trust = match (&self.fingerprint, &self.ca_file) {
            (Some(hex), _) => Trust::Fingerprint(hex.clone()),
            (None, Some(path)) => Trust::Ca(path.clone()),
            (None, None) => {
                return Err(Failure::usage(format!("how is {host} known to be the right one?")).hint(
                    "give --fingerprint (HOLM_FINGERPRINT), as `holm serve` prints it when it starts, or --ca-file",
                ));
            }
        };
        let token =
            match &self.token_file {
                Some(path) => Some(std::fs::read_to_string(path).map_err(|e| {
                    Failure::local(format!("cannot read the token file {}", path.display()), &e)
                })?),
                None => token,
            };
        let Some(token) = token.map(|t| t.trim().to_string()).filter(|t| !t.is_empty()) else {
            return Err(Failure::usage(format!("{host} lets nobody in without a token")).hint(
                "make one on its machine with `holm token create NAME`, then set HOLM_TOKEN or --token-file",
            ));
        };
        Ok(Client::tls(host, &trust)?.with_token(token))
    }
}
