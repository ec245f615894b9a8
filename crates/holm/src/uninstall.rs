//! `holm uninstall`: ends what runs, and takes off the host all that a daemon left on it.
//!
//! ```text
//!   guests ─► control groups ─► namespaces ─► host: links, table, settings ─► mounts ─► run directory ─► (--data) state
//! ```
//! It needs no daemon, and refuses while one holds the store. Records, images, volumes and logs stay unless `--data` is
//! given: started again, the daemon goes on from there. Every step may be repeated, so a run that was cut off or failed
//! is finished by another. It must never touch what bears another prefix or lies in other directories.

use crate::serve;
use model::{
    dataplane::{self, host::HostSettings, namespace::Place},
    instance::Kind,
};
use node::{
    container::driver::{PodDriver, PodDriverConfig},
    driver::{Driver, DriverError},
    network::{
        apply::{ApplyError, Dataplane},
        gather::Gather,
    },
    vm::driver::{Settings as VmSettings, VmDriver},
};
use std::{
    io::{IsTerminal, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};
use store::{
    Sqlite, Store,
    sqlite::{OpenError, Options as StoreOptions},
};
use sys::{cgroup::Tree, netlink::Netlink, netns::NetNs};

/// What to uninstall.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Stop the daemon first: `systemctl disable --now holm`, or end `holm serve`.\n\
    The program itself and its systemd unit are files of yours: delete them when this is done.")]
pub struct Options {
    /// Directory of the store, images, volumes and logs
    #[arg(long, env = "HOLM_STATE", value_name = "DIR", default_value = "/var/lib/holm")]
    pub state: PathBuf,
    /// Directory of sockets and namespace handles
    #[arg(long, env = "HOLM_RUN", value_name = "DIR", default_value = "/run/holm")]
    pub run: PathBuf,
    /// Prefix of kernel names on the host, as the daemon had it
    #[arg(long, env = "HOLM_PREFIX", value_name = "NAME", default_value = "holm")]
    pub prefix: String,
    /// Delete the data too: records, images, volumes and logs
    #[arg(long)]
    pub data: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// Why not all is gone. Running it again goes on.
#[derive(Debug, thiserror::Error)]
enum UninstallError {
    /// Not root.
    #[error("holm uninstall needs root: try `sudo holm uninstall`")]
    NotRoot,
    /// A daemon runs.
    #[error("{0}: stop the daemon first (`systemctl stop holm`, or end `holm serve`)")]
    Running(OpenError),
    /// The answer was no, or nobody can be asked.
    #[error("nothing was changed; add -y to say yes")]
    NotWanted,
    /// A guest.
    #[error("instances could not be ended")]
    Guests(#[from] DriverError),
    /// A namespace.
    #[error(transparent)]
    Network(#[from] ApplyError),
    /// The kernel.
    #[error("{0}")]
    Kernel(#[from] sys::error::Error),
    /// A file.
    #[error("{operation} {}", path.display())]
    File {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

type Result<T> = std::result::Result<T, UninstallError>;

/// The command.
pub fn main(options: &Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(uninstall(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", node::instance::sentence(&error));
            ExitCode::FAILURE
        }
    }
}

async fn uninstall(options: &Options) -> Result<()> {
    if sys::process::effective_uid() != 0 {
        return Err(UninstallError::NotRoot);
    }
    let store = hold_store(&options.state).await?;
    let guests = Guests::find(options).await?;
    confirm(options, guests.count())?;
    if guests.count() > 0 {
        guests.end().await?;
        eprintln!("ended what ran ({} instances)", guests.count());
    }
    remove_groups(&options.prefix)?;
    let proxies = store.as_ref().map(|store| proxies_of(store, options)).unwrap_or_default();
    remove_network(options, proxies)?;
    eprintln!(
        "removed namespaces, links and the nftables table {:?}; put network settings back",
        options.prefix
    );
    sys::mount::unmount_below(&options.run)?;
    sys::mount::unmount_below(&options.state)?;
    remove_directory(&options.run)?;
    drop(store);
    if options.data {
        remove_directory(&options.state)?;
        eprintln!("deleted {}", options.state.display());
    } else if options.state.exists() {
        eprintln!("kept {} (records, images, volumes, logs; --data deletes them)", options.state.display());
    }
    Ok(())
}

/// Opens the store, so that no daemon can start meanwhile; `None` when there is none that can be read.
async fn hold_store(state: &Path) -> Result<Option<Store>> {
    let path = state.join("holm.db");
    if !path.exists() {
        return Ok(None);
    }
    let opened = tokio::task::block_in_place(|| Sqlite::open(&path, StoreOptions::default()));
    let engine = match opened {
        Ok(engine) => engine,
        Err(held @ OpenError::Held { .. }) => return Err(UninstallError::Running(held)),
        Err(other) => {
            eprintln!("warning: {other}; going on without the records");
            return Ok(None);
        }
    };
    match Store::open(Arc::new(engine), control::schema::schema()).await {
        Ok(store) => Ok(Some(store)),
        Err(error) => {
            eprintln!("warning: the records cannot be read ({error}); going on without them");
            Ok(None)
        }
    }
}

fn confirm(options: &Options, guests: usize) -> Result<()> {
    if options.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(UninstallError::NotWanted);
    }
    let running = if guests > 0 { format!(" {guests} instances are ended at once.") } else { String::new() };
    let data = if options.data {
        format!(" All data in {} is deleted.", options.state.display())
    } else {
        String::new()
    };
    eprint!("Take holm ({}) off this machine?{running}{data} [y/N] ", options.prefix);
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match (read, answer.trim().to_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(UninstallError::NotWanted),
    }
}

/// What the drivers find of instances on this host.
struct Guests {
    found: Vec<(Arc<dyn Driver>, Vec<model::id::InstanceId>)>,
}

impl Guests {
    async fn find(options: &Options) -> Result<Self> {
        let mut found = vec![];
        for (_, driver) in drivers(options)? {
            let ids = driver.list().await?;
            found.push((driver, ids));
        }
        Ok(Self { found })
    }

    fn count(&self) -> usize {
        let mut all: Vec<_> = self.found.iter().flat_map(|(_, ids)| ids).collect();
        all.sort();
        all.dedup();
        all.len()
    }

    async fn end(&self) -> Result<()> {
        for (driver, ids) in &self.found {
            for id in ids {
                driver.kill(*id).await?;
            }
        }
        Ok(())
    }
}

fn drivers(options: &Options) -> Result<Vec<(Kind, Arc<dyn Driver>)>> {
    let pods = PodDriver::new(PodDriverConfig {
        state: options.state.clone(),
        run: options.run.clone(),
        cgroup_root: options.prefix.clone(),
        program: None,
        machines: None,
    });
    let vms = VmDriver::new(VmSettings {
        run: options.run.join("instances"),
        state: options.state.join("instances"),
        accelerator_cache: options.run.join("kvm.json"),
        cgroups: Tree::probe(&options.prefix)?,
        qemu: None,
    });
    Ok(vec![(Kind::Container, Arc::new(pods)), (Kind::Vm, Arc::new(vms))])
}

/// Ends whatever is left in our control groups, and removes them.
fn remove_groups(prefix: &str) -> Result<()> {
    let tree = Tree::probe(prefix)?;
    for name in tree.list("")? {
        tree.kill(&name)?;
        tree.delete(&name)?;
    }
    Ok(tree.delete_root()?)
}

/// Addresses that this host answers for on the links of others, which nothing but the records tells.
fn proxies_of(store: &Store, options: &Options) -> Vec<(String, IpAddr)> {
    let Ok(node) = serve::node_id(&options.state) else {
        return vec![];
    };
    let gather = Gather::new(store.clone(), node);
    let views: Vec<_> = gather.external_ids().into_iter().filter_map(|id| gather.external(id)).collect();
    let settings = HostSettings { prefix: options.prefix.clone(), ..HostSettings::default() };
    dataplane::host::compile(&settings, &views, &[]).proxies.into_iter().collect()
}

fn remove_network(options: &Options, proxies: Vec<(String, IpAddr)>) -> Result<()> {
    let settings = HostSettings { prefix: options.prefix.clone(), ..HostSettings::default() };
    let handles = options.run.join("netns");
    let dataplane = Dataplane::new(&handles, NetNs::current()?, settings);
    for name in dataplane.handle_names()? {
        match Place::of_handle_name(&name) {
            Some(place) => dataplane.remove(place)?,
            // A pod's own namespace.
            None => NetNs::delete(&handles.join(&name))?,
        }
    }
    let netlink = Netlink::open(&NetNs::current()?)?;
    for (device, address) in proxies {
        netlink.delete_proxy_neighbour(&device, address)?;
    }
    Ok(dataplane.remove(Place::Host)?)
}

/// Removes a directory with all in it; one that is not there is fine. Never follows a mount: those are gone before.
fn remove_directory(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(UninstallError::File { operation: "delete", path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}
