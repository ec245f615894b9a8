//! What VMs run on here: QEMU, and KVM as far as it truly runs guests; or nothing at all, to measure the rest.

use super::{Options, ServeError};
use model::node::{GUEST_OVERHEAD_FACT, IMAGE_HOSTS_FACT, guest_overhead_fact};
use node::{
    container::driver::PodDriver,
    driver::Driver,
    fake::{FakeHost, Fuse},
    host::HostFacts,
    vm::driver::VmDriver,
};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// CPUs of a host whose VMs live in memory alone.
const FAKE_CPUS: u32 = 4096;

/// The driver of VMs and what is known of this host's QEMU and KVM.
pub fn vm_driver(options: &Options, state: &Path, run: &Path) -> Result<(VmDriver, HostFacts), ServeError> {
    let cache = run.join("kvm.json");
    let judgement = node::vm::accel::judge(Path::new("/dev/kvm"), &cache);
    let program =
        options.qemu.clone().unwrap_or_else(|| format!("qemu-system-{}", std::env::consts::ARCH).into());
    let qemu = node::host::qemu_version(&program.to_string_lossy());
    let chosen = judgement.choose(model::plan::Accelerator::Auto)?;
    let facts = HostFacts {
        accelerator: chosen.as_str().to_string(),
        accelerator_reason: judgement.describe(chosen),
        qemu,
        facts: facts(options),
        cpus: options.fake_vms.then_some(FAKE_CPUS),
    };
    let driver = VmDriver::new(node::vm::driver::Settings {
        run: run.join("instances"),
        state: state.join("instances"),
        accelerator_cache: cache,
        cgroups: sys::cgroup::Tree::probe(&options.prefix).map_err(|e| ServeError::Unfit(e.to_string()))?,
        qemu: options.qemu.clone(),
    });
    Ok((driver, facts))
}

/// Tells how much memory a pod's own kernel takes here, for who chooses hosts.
pub fn tell_overhead(pods: &PodDriver, facts: &mut HostFacts) {
    match pods.overhead_mib() {
        Ok(mib) => {
            facts.facts.insert(GUEST_OVERHEAD_FACT.to_string(), guest_overhead_fact(mib));
        }
        // Pods of that sort cannot run here, and who asks for one is told why.
        Err(error) => tracing::debug!(%error, "no pod has a kernel of its own here"),
    }
}

/// Settings of the operator that users are told of.
fn facts(options: &Options) -> BTreeMap<String, String> {
    let hosts = options.image_host.join(", ");
    let told = (!hosts.is_empty()).then(|| (IMAGE_HOSTS_FACT.to_string(), hosts));
    told.into_iter().collect()
}

/// A driver whose VMs live in memory and end with the daemon.
pub fn fake_driver() -> Arc<dyn Driver> {
    tracing::warn!("virtual machines live in memory alone: nothing of them runs");
    Arc::new(FakeHost::default().driver(Arc::new(Fuse::new())))
}
