//! Plans of the dataplane, written to the kernel.
//!
//! What was written last is remembered, so that a small change is a small write; after a restart nothing is, and
//! everything is written again. The kernel is asked only which devices are there, and, when nothing is remembered,
//! what of ours is left over. Whatever fails is forgotten, so the next run writes the whole again: a crash or an
//! error at any point heals by applying once more.
//!
//! The firewall comes first and forwarding after it: there is no moment at which a namespace passes more than its
//! plan allows.

use super::ranges;
use crate::{container::network::pod_handle_name, network::host_record};
use ipnet::IpNet;
use model::{
    dataplane::{
        host::HostSettings,
        namespace::{DeviceKind, DevicePlan, NamespacePlan, Place, RouteAction, RoutePlan},
        nft::{self, Table},
    },
    id::InstanceId,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};
use sys::{
    netlink::{Link, MAIN_TABLE, Netlink, Route, RouteTarget},
    netns::NetNs,
    nft::{Elements, HeldRuns, NftError, Standby},
    sysctl, tap,
};

/// Why a plan was not written. What was written of it does no harm; applying again goes on.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused something.
    #[error("network of {place:?} could not be set up")]
    Kernel {
        /// Which namespace.
        place: Place,
        /// What the kernel said.
        #[source]
        source: sys::error::Error,
    },
    /// The firewall was refused, so nothing else was written.
    #[error("firewall of {place:?} could not be written")]
    Firewall {
        /// Which namespace.
        place: Place,
        /// What nft said.
        #[source]
        source: NftError,
    },
    /// The directory of handles could not be read.
    #[error("handles of network namespaces in {directory} could not be listed")]
    Handles {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The namespaces of one holm on one host.
pub struct Dataplane {
    handles: PathBuf,
    host: Arc<NetNs>,
    settings: HostSettings,
    // One writer at a time: a link has an end in two namespaces, and applying is short.
    applied: Mutex<HashMap<Place, Applied>>,
    held_runs: Arc<HeldRuns>,
}

/// A namespace and what was written to it.
struct Applied {
    namespace: Arc<NetNs>,
    netlink: Netlink,
    firewall: Standby,
    elements: Elements,
    /// Devices that no plan names any more, by their indices: nothing passes them, and they go soon.
    leaving: BTreeSet<u32>,
    /// The plan and the indices of its devices at that time; `None` until a plan was written to the end.
    written: Option<(NamespacePlan, HashMap<String, u32>)>,
}

/// What an application did that others must know of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Names of the plan's devices by index.
    pub devices: HashMap<u32, String>,
    /// Addresses newly answered for on behalf of others, by device: a LAN should be told.
    pub announcements: Vec<(String, IpAddr)>,
    /// Single addresses that lead another way than before, as a floating IP's does in its external network when it
    /// moves: a LAN should be told again.
    pub moved: Vec<IpAddr>,
    /// Whether anything was written.
    pub changed: bool,
    /// Whether devices are left to [`Dataplane::sweep`].
    pub leaves: bool,
    /// Ranges of the plan that were left out, because the host has routes of its owner's to them.
    pub left_out: BTreeSet<IpNet>,
}

impl Dataplane {
    /// A dataplane whose handles live in `handles` and whose host side is written to `host`.
    pub fn new(handles: &Path, host: NetNs, settings: HostSettings) -> Self {
        Self {
            handles: handles.to_path_buf(),
            host: Arc::new(host),
            settings,
            applied: Mutex::default(),
            held_runs: Arc::default(),
        }
    }

    /// What the host is like.
    pub fn settings(&self) -> &HostSettings {
        &self.settings
    }

    /// The host's namespace.
    pub fn host(&self) -> Arc<NetNs> {
        self.host.clone()
    }

    /// The file that says what the host was like before.
    pub fn record(&self) -> PathBuf {
        self.handles.parent().unwrap_or(&self.handles).join(host_record::FILE_NAME)
    }

    /// Where the handle of a namespace is; `None` for the host's.
    pub fn handle(&self, place: Place) -> Option<PathBuf> {
        place.handle_name().map(|name| self.handles.join(name))
    }

    /// Whether the pod of this instance has its namespace.
    pub fn has_room(&self, id: InstanceId) -> bool {
        self.handles.join(pod_handle_name(id)).exists()
    }

    /// The namespace of `place`, made if it is not there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn namespace(&self, place: Place) -> Result<Arc<NetNs>, ApplyError> {
        let mut applied = self.lock();
        self.entry(&mut applied, place).map(|entry| entry.namespace.clone())
    }

    /// Makes the kernel's state equal to the plan.
    ///
    /// # Errors
    /// The first thing that was refused. What came before it stays; applying again goes on.
    pub fn apply(&self, plan: &NamespacePlan) -> Result<Outcome, ApplyError> {
        let place = plan.place;
        let mut applied = self.lock();
        // Both ends of a link need their namespace first.
        let mut peers = HashMap::new();
        for device in plan.devices.values() {
            if let DeviceKind::Link { peer_place, .. } = device.kind {
                peers.insert(peer_place, self.entry(&mut applied, peer_place)?.namespace.clone());
            }
        }
        let entry = self.entry(&mut applied, place)?;
        if place == Place::Host {
            host_record::remember(&self.host, &self.record(), &plan.sysctls)
                .map_err(|source| ApplyError::Kernel { place, source })?;
        }
        let before = entry.written.take();
        let is_ours = |name: &str| place != Place::Host || self.settings.is_ours(name);
        let mut plan = Cow::Borrowed(plan);
        let mut left_out = BTreeSet::new();
        let is_new = |route: &RoutePlan| before.as_ref().is_none_or(|(old, _)| !old.routes.contains(route));
        if place == Place::Host && plan.routes.iter().any(is_new) {
            let present = entry.netlink.list_routes(MAIN_TABLE);
            let present = present.map_err(|source| ApplyError::Kernel { place, source })?;
            left_out = ranges::leave_out(plan.to_mut(), &present, is_ours);
        }
        let plan = &*plan;
        let writer = Writer {
            entry,
            plan,
            before: before.as_ref(),
            peers: &peers,
            is_ours: &is_ours,
            handles: &self.handles,
        };
        writer.firewall().map_err(|source| ApplyError::Firewall { place, source })?;
        let (indices, leaving) = writer.rest().map_err(|source| ApplyError::Kernel { place, source })?;
        let outcome = Outcome {
            devices: indices.iter().map(|(name, index)| (*index, name.clone())).collect(),
            announcements: model::dataplane::host::announcements(before.as_ref().map(|(old, _)| old), plan),
            moved: before.as_ref().map_or_else(Vec::new, |(old, _)| moved(old, plan)),
            changed: before.as_ref().is_none_or(|(old, known)| old != plan || *known != indices),
            leaves: !leaving.is_empty(),
            left_out,
        };
        entry.leaving = leaving;
        entry.written = Some((plan.clone(), indices));
        Ok(outcome)
    }

    /// Deletes the devices of a namespace that no plan names any more. The kernel takes tens of milliseconds for each and
    /// does nothing else with links meanwhile; those whose other end was in a namespace that ended are gone by themselves
    /// shortly after it.
    ///
    /// # Errors
    /// The kernel's; sweeping again goes on.
    pub fn sweep(&self, place: Place) -> Result<(), ApplyError> {
        let kernel = |source| ApplyError::Kernel { place, source };
        let (namespace, leaving) = match self.lock().get(&place) {
            Some(entry) => (Arc::clone(&entry.namespace), entry.leaving.clone()),
            None => return Ok(()),
        };
        // Others apply their plans meanwhile.
        let netlink = Netlink::open(&namespace).map_err(kernel)?;
        leaving.iter().try_for_each(|index| netlink.delete_link_at(*index)).map_err(kernel)?;
        if let Some(entry) =
            self.lock().get_mut(&place).filter(|entry| Arc::ptr_eq(&entry.namespace, &namespace))
        {
            entry.leaving.retain(|index| !leaving.contains(index));
        }
        Ok(())
    }

    /// Takes a namespace away, with all that is in it. Of the host only what is ours.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self, place: Place) -> Result<(), ApplyError> {
        let mut applied = self.lock();
        let kernel = |source| ApplyError::Kernel { place, source };
        let Some(handle) = self.handle(place) else {
            return self.remove_from_host(&mut applied);
        };
        if handle.exists() {
            // A process that still holds the namespace must not keep its links alive.
            if let Ok(entry) = self.entry(&mut applied, place) {
                for link in entry.netlink.links().map_err(kernel)? {
                    if link.name != "lo" {
                        entry.netlink.delete_link(&link.name).map_err(kernel)?;
                    }
                }
            }
        }
        applied.remove(&place);
        NetNs::delete(&handle).map_err(kernel)
    }

    /// Takes our links, proxies and table off the host, and puts its settings back.
    fn remove_from_host(&self, applied: &mut HashMap<Place, Applied>) -> Result<(), ApplyError> {
        let place = Place::Host;
        let kernel = |source| ApplyError::Kernel { place, source };
        let netlink = Netlink::open(&self.host).map_err(kernel)?;
        if let Some((plan, _)) = applied.remove(&place).and_then(|entry| entry.written) {
            for (device, address) in &plan.proxies {
                netlink.delete_proxy_neighbour(device, *address).map_err(kernel)?;
            }
        }
        for link in netlink.links().map_err(kernel)? {
            if self.settings.is_ours(&link.name) {
                netlink.delete_link(&link.name).map_err(kernel)?;
            }
        }
        host_record::put_back(&self.host, &self.record()).map_err(kernel)?;
        let table = Table::new(self.settings.prefix.clone());
        sys::nft::apply(&self.host, &table.remove_script())
            .map_err(|source| ApplyError::Firewall { place, source })
    }

    /// Names of the handles that are there, for taking away those that nothing needs any more.
    ///
    /// # Errors
    /// When the directory cannot be read; one that is not there is empty.
    pub fn handle_names(&self) -> Result<BTreeSet<String>, ApplyError> {
        let failed = |source| ApplyError::Handles { directory: self.handles.clone(), source };
        match fs::read_dir(&self.handles) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(failed(error)),
            Ok(entries) => entries
                .map(|entry| {
                    entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(failed)
                })
                .collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Applied>> {
        // A panic while applying left `written` empty, which is what a fresh start has.
        self.applied.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn entry<'a>(
        &self,
        applied: &'a mut HashMap<Place, Applied>,
        place: Place,
    ) -> Result<&'a mut Applied, ApplyError> {
        use std::collections::hash_map::Entry;
        match applied.entry(place) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let kernel = |source| ApplyError::Kernel { place, source };
                let namespace = match self.handle(place) {
                    None => self.host.clone(),
                    Some(handle) => Arc::new(NetNs::create(&handle).map_err(kernel)?),
                };
                let netlink = Netlink::open(&namespace).map_err(kernel)?;
                let firewall = Standby::new(Arc::clone(&namespace), Arc::clone(&self.held_runs));
                let elements = Elements::new(Arc::clone(&namespace));
                let leaving = BTreeSet::new();
                Ok(entry.insert(Applied { namespace, netlink, firewall, elements, leaving, written: None }))
            }
        }
    }
}

type KernelResult<T> = sys::error::Result<T>;

/// One application of a plan.
struct Writer<'a> {
    entry: &'a Applied,
    plan: &'a NamespacePlan,
    before: Option<&'a (NamespacePlan, HashMap<String, u32>)>,
    peers: &'a HashMap<Place, Arc<NetNs>>,
    is_ours: &'a dyn Fn(&str) -> bool,
    handles: &'a Path,
}

impl Writer<'_> {
    fn firewall(&self) -> Result<(), NftError> {
        let table = &self.plan.table;
        let firewall = &self.entry.firewall;
        match self.before {
            // After a start all are written, one after the other: no next run is held ready for each of them.
            None => sys::nft::apply(&self.entry.namespace, &table.replace_script()),
            Some((old, _)) => {
                if self.elements(&old.table) {
                    return Ok(());
                }
                let script = table.update_script(&old.table);
                firewall.apply(&script).or_else(|error| {
                    // Somebody else changed our table: then it is written anew, as after a restart.
                    tracing::warn!(place = ?self.plan.place, %error, "firewall was not as expected; writing it anew");
                    firewall.apply(&table.replace_script())
                })
            }
        }
    }

    /// Writes what is different, where that is elements alone. Gives whether all is as it should be now.
    fn elements(&self, old: &Table) -> bool {
        let table = &self.plan.table;
        let Some(changes) = table.element_changes(old) else { return false };
        let changes: Vec<_> = changes.into_iter().map(spelled).collect();
        self.entry.elements.change(&table.name, &changes).unwrap_or_else(|error| {
            // nft says more of what is wrong.
            tracing::debug!(place = ?self.plan.place, %error, "elements were refused");
            false
        })
    }

    /// Gives the indices of the plan's devices, and of those that are left to go.
    fn rest(&self) -> KernelResult<(HashMap<String, u32>, BTreeSet<u32>)> {
        let old_sysctls: &[(String, String)] = self.before.map_or(&[], |(old, _)| &old.sysctls);
        let sysctls: Vec<_> = self.plan.sysctls.iter().filter(|s| !old_sysctls.contains(s)).collect();
        self.write_sysctls(sysctls)?;
        if self.before.is_none() && self.plan.place != Place::Host {
            self.entry.netlink.set_up("lo")?;
        }
        let netlink = &self.entry.netlink;
        let mut present = netlink.links()?.into_iter().map(|link| (link.name.clone(), link)).collect();
        let leaving = self.remove_strays(&mut present)?;
        let (indices, fresh) = self.devices(present)?;
        self.addresses(&fresh)?;
        self.neighbours(&fresh)?;
        self.routes(&fresh)?;
        self.proxies(&fresh)?;
        Ok((indices, leaving))
    }

    fn write_sysctls(&self, settings: Vec<&(String, String)>) -> KernelResult<()> {
        if settings.is_empty() {
            return Ok(());
        }
        sysctl::write_all(&self.entry.namespace, settings.into_iter().map(|(k, v)| (k.as_str(), v.as_str())))
    }

    /// Makes missing devices. Gives all indices, and the names of devices that are not those of
    /// the last time (all, if nothing is remembered): what stood on them must be written again.
    fn devices(
        &self,
        mut present: HashMap<String, Link>,
    ) -> KernelResult<(HashMap<String, u32>, BTreeSet<String>)> {
        let (mut indices, mut fresh) = (HashMap::new(), BTreeSet::new());
        for (name, device) in &self.plan.devices {
            let link = match present.remove(name) {
                Some(link) => link,
                None => self.make(name, device)?,
            };
            let index = link.index;
            let known =
                self.before.and_then(|(old, known)| Some((old.devices.get(name)?, *known.get(name)?)));
            if !known.is_some_and(|(old, known)| known == index && old == device) {
                // A change of a device may cost it its neighbours and routes, so what stands on it is written anew.
                self.configure(&link, device)?;
                fresh.insert(name.clone());
            }
            indices.insert(name.clone(), index);
        }
        Ok((indices, fresh))
    }

    /// Takes out of `present` the devices of ours that the plan does not name, or names as something else. Gives the indices of
    /// those that can be left to go later; others are deleted: where the plan needs the name, and on the host.
    fn remove_strays(&self, present: &mut HashMap<String, Link>) -> KernelResult<BTreeSet<u32>> {
        let waiting: BTreeSet<&str> = self
            .plan
            .devices
            .values()
            .filter_map(
                |d| if let DeviceKind::Veth { peer, .. } = &d.kind { Some(peer.as_str()) } else { None },
            )
            .collect();
        // The other end is in another's namespace, or went with it.
        let had_another_holder = |name: &String| {
            let holder = |plan: &NamespacePlan| match plan.devices.get(name)?.kind {
                DeviceKind::Veth { holder, .. } => Some(holder),
                _ => None,
            };
            self.before.is_some_and(|(old, _)| {
                holder(old).is_some_and(|old| holder(self.plan).is_some_and(|new| new != old))
            })
        };
        let mut strays = Vec::new();
        for (name, link) in present.iter() {
            let planned = self.plan.devices.get(name).map(|device| match device.kind {
                DeviceKind::Tap { .. } => "tun",
                DeviceKind::Veth { .. } | DeviceKind::Link { .. } => "veth",
            });
            // Devices that every namespace has (lo, and tunnels that some kernels add) have no kind or are not Ethernet.
            let ordinary = matches!(link.kind.as_deref(), Some("tun" | "veth"));
            if ordinary
                && (planned != link.kind.as_deref()
                    || self.entry.leaving.contains(&link.index)
                    || had_another_holder(name))
                && !waiting.contains(name.as_str())
                && (self.is_ours)(name)
            {
                strays.push(name.clone());
            }
        }
        let mut leaving = BTreeSet::new();
        for name in strays {
            let stray = present.remove(&name);
            if self.plan.place == Place::Host || self.plan.devices.contains_key(&name) {
                self.entry.netlink.delete_link(&name)?;
            } else {
                leaving.extend(stray.map(|link| link.index));
            }
        }
        Ok(leaving)
    }

    fn make(&self, name: &str, device: &DevicePlan) -> KernelResult<Link> {
        let netlink = &self.entry.netlink;
        match &device.kind {
            DeviceKind::Tap { owner_uid } => {
                tap::ensure(&self.entry.namespace, name, *owner_uid, device.mac.0)?
            }
            DeviceKind::Veth { peer, holder } => {
                // Moving a device to another namespace costs the kernel many times what making it there does.
                let handle = holder.map(|id| self.handles.join(pod_handle_name(id)));
                let there = handle.and_then(|handle| NetNs::open(&handle).ok());
                netlink.add_veth(name, peer, there.as_ref())?;
            }
            DeviceKind::Link { peer_place, peer, peer_mac } => {
                let there = &self.peers[peer_place];
                let far = Netlink::open(there)?;
                // Whatever bears the name there is not our other end, or ours would be here too.
                far.delete_link(peer)?;
                netlink.add_veth(name, peer, Some(there))?;
                far.set_mac(peer, peer_mac.0)?;
            }
        }
        let missing = || {
            sys::error::Error::new("find device just made", name, io::Error::from(io::ErrorKind::NotFound))
        };
        netlink.link(name)?.ok_or_else(missing)
    }

    fn configure(&self, link: &Link, device: &DevicePlan) -> KernelResult<()> {
        let (netlink, name) = (&self.entry.netlink, link.name.as_str());
        if let DeviceKind::Tap { owner_uid } = &device.kind {
            tap::ensure(&self.entry.namespace, name, *owner_uid, device.mac.0)?;
        }
        // Even the same address, set again, makes the kernel forget the device's neighbours.
        if link.mac != Some(device.mac.0) {
            netlink.set_mac(name, device.mac.0)?;
        }
        if link.mtu != device.mtu {
            netlink.set_mtu(name, device.mtu)?;
        }
        self.write_sysctls(device.sysctls.iter().collect())?;
        netlink.set_up(name)
    }

    fn addresses(&self, fresh: &BTreeSet<String>) -> KernelResult<()> {
        let netlink = &self.entry.netlink;
        let none = BTreeSet::new();
        let old = self.before.map_or(&none, |(old, _)| &old.addresses);
        for (device, address) in &self.plan.addresses {
            if fresh.contains(device) || !old.contains(&(device.clone(), *address)) {
                netlink.add_address(device, *address)?;
            }
        }
        for (device, address) in old.difference(&self.plan.addresses) {
            if self.exists(device) {
                netlink.delete_address(device, *address)?;
            }
        }
        if self.before.is_some() {
            return Ok(());
        }
        // Nothing is remembered. Ports always have the same addresses; only loopback and links can have old ones.
        let link = |(name, d): (&String, &DevicePlan)| {
            matches!(d.kind, DeviceKind::Link { .. }).then(|| name.clone())
        };
        let mut devices: Vec<String> = self.plan.devices.iter().filter_map(link).collect();
        if self.plan.place != Place::Host {
            devices.push("lo".to_string());
        }
        for device in devices {
            for address in netlink.addresses(&device)? {
                if !address.addr().is_loopback() && !self.plan.addresses.contains(&(device.clone(), address))
                {
                    netlink.delete_address(&device, address)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a device of an old plan is still there to be changed.
    fn exists(&self, device: &str) -> bool {
        self.plan.devices.contains_key(device) || device == "lo"
    }

    /// A neighbour left over from a forgotten plan does nothing without its route, so none are sought.
    fn neighbours(&self, fresh: &BTreeSet<String>) -> KernelResult<()> {
        let netlink = &self.entry.netlink;
        let none = BTreeSet::new();
        let old = self.before.map_or(&none, |(old, _)| &old.neighbours);
        for neighbour in &self.plan.neighbours {
            if fresh.contains(&neighbour.device) || !old.contains(neighbour) {
                netlink.replace_neighbour(&neighbour.device, neighbour.address, neighbour.mac.0)?;
            }
        }
        let kept: BTreeSet<(&str, IpAddr)> =
            self.plan.neighbours.iter().map(|n| (n.device.as_str(), n.address)).collect();
        for gone in
            old.iter().filter(|n| !kept.contains(&(n.device.as_str(), n.address)) && self.exists(&n.device))
        {
            netlink.delete_neighbour(&gone.device, gone.address)?;
        }
        Ok(())
    }

    fn routes(&self, fresh: &BTreeSet<String>) -> KernelResult<()> {
        let netlink = &self.entry.netlink;
        let none = BTreeSet::new();
        let old = self.before.map_or(&none, |(old, _)| &old.routes);
        let mut present: BTreeMap<IpNet, Vec<Route>> = BTreeMap::new();
        if self.before.is_none() {
            for route in netlink.list_routes(MAIN_TABLE)? {
                present.entry(route.destination).or_default().push(route);
            }
        }
        for route in &self.plan.routes {
            let moved = device_of(&route.action).is_some_and(|device| fresh.contains(device));
            if self.before.is_some() && !moved && old.contains(route) {
                continue;
            }
            // Writing what is there already would be right too, but slow for thousands after a restart.
            let wanted = kernel_route(route);
            let there = present.get(&route.destination).map(Vec::as_slice);
            if !matches!(there, Some([only]) if is_same_way(&only.target, &wanted.target)) {
                netlink.replace_route(&wanted)?;
            }
        }
        let kept: BTreeSet<IpNet> = self.plan.routes.iter().map(|route| route.destination).collect();
        for gone in old.iter().filter(|route| !kept.contains(&route.destination)) {
            // The route of a device that is gone went with it.
            if device_of(&gone.action).is_none_or(|device| self.exists(device)) {
                netlink.delete_route(&kernel_route(gone))?;
            }
        }
        let strays = present.values().flatten().filter(|route| !kept.contains(&route.destination));
        for stray in strays.filter(|route| self.is_our_route(route)) {
            netlink.delete_route(stray)?;
        }
        Ok(())
    }

    /// Whether a route can only be one that an earlier plan made: the kernel makes those of link-local ranges, and on
    /// the host only routes over our own devices are ours.
    fn is_our_route(&self, route: &Route) -> bool {
        let link_local = matches!(route.destination.addr(), IpAddr::V6(a) if a.is_unicast_link_local());
        let over_ours = match &route.target {
            RouteTarget::Device(device) | RouteTarget::Via { device: Some(device), .. } => {
                (self.is_ours)(device)
            }
            _ => self.plan.place != Place::Host,
        };
        over_ours && !link_local
    }

    fn proxies(&self, fresh: &BTreeSet<String>) -> KernelResult<()> {
        let netlink = &self.entry.netlink;
        let none = BTreeSet::new();
        let old = self.before.map_or(&none, |(old, _)| &old.proxies);
        for proxy in &self.plan.proxies {
            if fresh.contains(&proxy.0) || !old.contains(proxy) {
                netlink.add_proxy_neighbour(&proxy.0, proxy.1)?;
            }
        }
        for (device, address) in old.difference(&self.plan.proxies) {
            if self.plan.place == Place::Host || self.exists(device) {
                netlink.delete_proxy_neighbour(device, *address)?;
            }
        }
        if self.before.is_some() {
            return Ok(());
        }
        let devices: BTreeSet<&String> = self.plan.proxy_ranges.iter().map(|(device, _)| device).collect();
        for device in devices {
            for address in netlink.proxy_neighbours(device)? {
                let ours =
                    self.plan.proxy_ranges.iter().any(|(d, range)| d == device && range.contains(&address));
                if ours && !self.plan.proxies.contains(&(device.clone(), address)) {
                    netlink.delete_proxy_neighbour(device, address)?;
                }
            }
        }
        Ok(())
    }
}

/// The change as it is told to the kernel.
fn spelled(change: nft::ElementChange<'_>) -> sys::nft::ElementChange<'_> {
    let nft::ElementChange { set, kind, key, value, added } = change;
    sys::nft::ElementChange { set, kind, key, value, added }
}

/// Single addresses whose route goes over another link in `new` than in `old`.
fn moved(old: &NamespacePlan, new: &NamespacePlan) -> Vec<IpAddr> {
    let is_single = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
    let before: BTreeMap<IpNet, &RouteAction> =
        old.routes.iter().map(|route| (route.destination, &route.action)).collect();
    let changed = |route: &&RoutePlan| {
        is_single(&route.destination)
            && route.action != RouteAction::Unreachable
            && before.get(&route.destination) != Some(&&route.action)
    };
    new.routes.iter().filter(changed).map(|route| route.destination.addr()).collect()
}

fn device_of(action: &RouteAction) -> Option<&str> {
    match action {
        RouteAction::Device(device) | RouteAction::Via { device, .. } => Some(device),
        RouteAction::Unreachable => None,
    }
}

/// Whether the kernel's description of a route says what was asked for; it does not repeat every flag.
fn is_same_way(present: &RouteTarget, wanted: &RouteTarget) -> bool {
    match (present, wanted) {
        (RouteTarget::Via { gateway: a, device: x, .. }, RouteTarget::Via { gateway: b, device: y, .. }) => {
            a == b && x == y
        }
        _ => present == wanted,
    }
}

fn kernel_route(plan: &RoutePlan) -> Route {
    let target = match &plan.action {
        RouteAction::Device(device) => RouteTarget::Device(device.clone()),
        RouteAction::Via { device, gateway } => {
            RouteTarget::Via { gateway: *gateway, device: Some(device.clone()), onlink: true }
        }
        RouteAction::Unreachable => RouteTarget::Unreachable,
    };
    Route::new(plan.destination, target)
}
