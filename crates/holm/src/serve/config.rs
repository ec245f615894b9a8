//! What `holm serve` can be told, on its command line and in the environment.

use super::listen::Listen;
use api::{limits::CONNECTIONS_OF_ADDRESS, server::Bounds};
use ipnet::IpNet;
use model::id::NodeId;
use std::{net::SocketAddr, path::PathBuf, str::FromStr};

/// Options of the daemon.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Directory of the store, images, volumes and logs.
    #[arg(long, env = "HOLM_STATE", value_name = "DIR", default_value = "/var/lib/holm", value_parser = directory)]
    pub state: PathBuf,
    /// Directory of sockets and namespace handles; emptied by a restart of the host.
    #[arg(long, env = "HOLM_RUN", value_name = "DIR", default_value = "/run/holm", value_parser = directory)]
    pub run: PathBuf,
    /// Group whose members may use the local socket; root alone when not given.
    #[arg(long, env = "HOLM_GROUP", value_name = "GROUP")]
    pub group: Option<String>,
    /// Address for the API by TLS with tokens, like 0.0.0.0:8443; no TLS door when not given.
    #[arg(long, env = "HOLM_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Connections that one remote address may have to each door at a time; 0 is no limit. Further ones are closed. Of IPv6
    /// a /64 counts as one address; connections from this host itself are not counted.
    #[arg(long, env = "HOLM_CONNECTIONS_PER_ADDRESS", value_name = "COUNT", default_value_t = CONNECTIONS_OF_ADDRESS)]
    pub connections_per_address: usize,
    /// Range of floating IPs and router addresses, routed by this host.
    #[arg(long, env = "HOLM_EXTERNAL", value_name = "CIDR", default_value = "172.31.240.0/22")]
    pub external_v4: IpNet,
    /// The same for IPv6 when the cloud begins: a range, auto for one made from this host's identity, or none.
    #[arg(long, env = "HOLM_EXTERNAL_V6", value_name = "CIDR|auto|none", default_value = "auto")]
    pub external_v6: ExternalV6,
    /// Prefix of kernel names on the host, for a second holm on one machine (at most 5 characters).
    #[arg(long, env = "HOLM_PREFIX", value_name = "NAME", default_value = "holm")]
    pub prefix: String,
    /// Mirror of a registry as REGISTRY=URL, like docker.io=http://127.0.0.1:5000; may be repeated.
    #[arg(long, env = "HOLM_REGISTRY_MIRROR", value_name = "REGISTRY=URL", value_delimiter = ',')]
    pub registry_mirror: Vec<String>,
    /// Registry spoken to by plain HTTP, beside those on loopback; may be repeated.
    #[arg(long, env = "HOLM_INSECURE_REGISTRY", value_name = "HOST:PORT", value_delimiter = ',')]
    pub insecure_registry: Vec<String>,
    /// Registry at a private address that members may use, beside those of --insecure-registry: HOST or HOST:PORT; may be
    /// repeated. Admins may use any.
    #[arg(long, env = "HOLM_PRIVATE_REGISTRY", value_name = "HOST:PORT", value_delimiter = ',')]
    pub private_registry: Vec<String>,
    /// Host that images may be fetched from by their address: HOST, HOST:PORT or *.DOMAIN; may be repeated. None: no
    /// image is. A host in a private range has to be named by its address.
    #[arg(long, env = "HOLM_IMAGE_HOST", value_name = "HOST", value_delimiter = ',')]
    pub image_host: Vec<String>,
    /// Address at which everybody may fetch public root file systems, unasked who they are, in the form of image servers of
    /// LXC and Incus: plain HTTP on loopback, TLS elsewhere or with https:// in front; no such server when not given.
    #[arg(long, env = "HOLM_IMAGE_SERVER", value_name = "ADDRESS:PORT")]
    pub image_server: Option<Listen>,
    /// Directory of this host that containers of admins may be shown, with all in it; may be repeated. None: no directory
    /// is. Who is shown one is root in it.
    #[arg(long, env = "HOLM_HOST_DIRECTORY", value_name = "DIR", value_delimiter = ',', value_parser = host_directory)]
    pub host_directory: Vec<PathBuf>,
    /// QEMU's program, if it is not where distributions put it.
    #[arg(long, env = "HOLM_QEMU", value_name = "PROGRAM")]
    pub qemu: Option<PathBuf>,
    /// Kernel that containers with a kernel of their own boot (`holm run --isolate vm`), if it is not this host's or the
    /// newest in /boot. Its modules lie in /lib/modules.
    #[arg(long, env = "HOLM_GUEST_KERNEL", value_name = "FILE")]
    pub guest_kernel: Option<PathBuf>,
    /// Socket of the Docker Engine API, for `docker -H unix://PATH`, or none. For the same who may use the local socket
    /// [default: docker.sock beside it].
    #[arg(long, env = "HOLM_DOCKER", value_name = "PATH|none")]
    pub docker: Option<DockerSocket>,
    #[command(flatten)]
    pub openstack: super::openstack::OpenStackOptions,
    /// Virtual machines live in memory alone and nothing of them runs: to measure the rest, and to try tools.
    #[arg(long, hide = true)]
    pub fake_vms: bool,
    /// What is logged to standard error: error, warn, info, debug, or a filter like node=debug.
    #[arg(long, env = "HOLM_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

/// Reads a directory of ours. Processes of other working directories are told of it, and a restart may have another one.
fn directory(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| error.to_string())
}

/// Reads a directory that is lent to containers.
fn host_directory(text: &str) -> Result<PathBuf, String> {
    let directory = PathBuf::from(text);
    model::instance::host_directory::check(&directory)?;
    Ok(directory)
}

/// Range of the first external network for IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalV6 {
    /// A /64 of the unique local range (RFC 4193), masqueraded as the IPv4 range is. It is made from the host's
    /// identity, so that two holms on one host do not take the same.
    Auto,
    /// No IPv6.
    None,
    /// This one.
    Range(IpNet),
}

impl ExternalV6 {
    /// The range for a node.
    pub fn range(self, node: NodeId) -> Option<IpNet> {
        match self {
            Self::Auto => {
                let [a, b, c, d, e, ..] = *node.0.as_bytes();
                Some(control::network::unique_local([a, b, c, d, e]))
            }
            Self::None => None,
            Self::Range(range) => Some(range),
        }
    }
}

impl FromStr for ExternalV6 {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" | "" => Ok(Self::None),
            range => match range.parse() {
                Ok(range @ IpNet::V6(_)) => Ok(Self::Range(range)),
                _ => Err("write an IPv6 range like fd00:1:2:3::/64, auto or none".into()),
            },
        }
    }
}

/// Where the Docker Engine API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerSocket {
    /// Nowhere.
    None,
    /// On this socket.
    Path(PathBuf),
}

impl FromStr for DockerSocket {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        match path {
            "none" => Ok(Self::None),
            path if path.starts_with('/') => Ok(Self::Path(path.into())),
            _ => Err("write the path of a socket like /run/holm/docker.sock, or none".into()),
        }
    }
}

impl Options {
    /// The socket of the Docker Engine API, if it is served.
    pub fn docker_socket(&self) -> Option<PathBuf> {
        match &self.docker {
            None => Some(self.run.join("docker.sock")),
            Some(DockerSocket::Path(path)) => Some(path.clone()),
            Some(DockerSocket::None) => None,
        }
    }

    /// What a door bears of its clients.
    pub fn bounds(&self) -> Bounds {
        let of_address = Some(self.connections_per_address).filter(|most| *most > 0);
        Bounds { of_address, ..Bounds::default() }
    }

    /// The local socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("holm.sock")
    }

    /// Mirrors by registry, in the order in which they were given.
    pub fn mirrors(&self) -> Vec<(String, String)> {
        let pairs = self.registry_mirror.iter().filter_map(|text| text.split_once('='));
        pairs.map(|(registry, url)| (registry.to_string(), url.to_string())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_do_not_depend_on_where_holm_was_started() {
        let here = std::env::current_dir().expect("a working directory");
        assert_eq!(directory("state"), Ok(here.join("state")));
        assert_eq!(directory("/var/lib/holm"), Ok("/var/lib/holm".into()));
        assert!(directory("").is_err(), "an empty path is none");
    }
}
