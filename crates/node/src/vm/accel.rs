//! Whether KVM truly runs guests on this host, and if not, why and what to do.
//!
//! A device that opens proves nothing: on some nested hosts every guest instruction is emulated and a stock kernel would
//! boot for hours. So the speed is measured once per boot of the host, and the judgement is cached in a file. The
//! fallback is emulation (TCG), which works everywhere and is plainly called slow. Must never block longer than
//! [`MEASURE_DEADLINE`].

use model::plan::Accelerator as Wanted;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::driver::DriverError;

/// Loop iterations a second from which KVM is taken for real. An ordinary host does hundreds of millions, one that
/// emulates does less than one.
pub const RATE_MIN: f64 = 50e6;
/// How long the loop is timed.
const MEASURE_FOR: Duration = Duration::from_millis(100);
/// After so long the measurement is given up and KVM is taken for broken.
pub const MEASURE_DEADLINE: Duration = Duration::from_secs(2);

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// The processor itself, by Linux's KVM.
    Kvm,
    /// QEMU's emulation.
    Tcg,
}

impl Accelerator {
    /// Name as QEMU and users spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// The judgement on KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It runs guests at speed.
    Works,
    /// There is no /dev/kvm.
    NoDevice,
    /// It exists, and QEMU's user may not open it.
    NoPermission,
    /// It opens, and runs guests far slower than a processor does.
    Slow,
    /// It fails in another way.
    Broken,
}

/// The judgement with the words for users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The judgement.
    pub verdict: Verdict,
    /// One sentence: what was found.
    pub reason: String,
    /// What the user can do; empty if nothing needs doing.
    pub hint: String,
    /// Measured loop iterations a second, where it came so far.
    pub iterations_per_second: Option<f64>,
    /// Group that QEMU must belong to in order to open the device.
    pub device_group: Option<u32>,
}

/// What is kept in the cache file.
#[derive(Serialize, Deserialize)]
struct Cached {
    boot_id: String,
    /// Owner, group and mode of the device: changed permissions void the judgement.
    permissions: String,
    judgement: Judgement,
}

impl Judgement {
    /// The accelerator for an instance that wants `wanted`; refuses KVM where it was demanded and does not work.
    pub fn choose(&self, wanted: Wanted) -> Result<Accelerator, DriverError> {
        match (wanted, self.verdict) {
            (Wanted::Tcg, _) => Ok(Accelerator::Tcg),
            (Wanted::Auto | Wanted::Kvm, Verdict::Works) => Ok(Accelerator::Kvm),
            (Wanted::Auto, _) => Ok(Accelerator::Tcg),
            (Wanted::Kvm, _) => Err(DriverError::Unsupported {
                what: format!("KVM was asked for and does not work here: {}", self.reason),
                hint: format!("{} Or let the VM be emulated with `--accelerator tcg`.", self.hint)
                    .trim()
                    .to_owned(),
            }),
        }
    }

    /// The sentence that `holm host info` and a VM's page show.
    pub fn describe(&self, accelerator: Accelerator) -> String {
        match (accelerator, self.verdict) {
            (Accelerator::Kvm, _) => "KVM, hardware virtualization on".to_owned(),
            (Accelerator::Tcg, Verdict::Works) => {
                "emulated (TCG) as was asked: 10 to 50 times slower than KVM".to_owned()
            }
            (Accelerator::Tcg, _) => {
                format!("emulated (TCG): 10 to 50 times slower than KVM; {}", self.reason)
            }
        }
    }
}

/// Judges the device `kvm` (normally `/dev/kvm`), from `cache` if it was judged since the host booted. Blocks for at
/// most [`MEASURE_DEADLINE`]; call it on a blocking thread.
pub fn judge(kvm: &Path, cache: &Path) -> Judgement {
    let boot_id = sys::pidfd::boot_id().unwrap_or_default();
    let permissions = match fs::metadata(kvm) {
        Ok(data) => format!("{}:{}:{:o}", data.uid(), data.gid(), data.mode()),
        Err(_) => "absent".to_owned(),
    };
    let known = fs::read(cache).ok().and_then(|text| serde_json::from_slice::<Cached>(&text).ok());
    if let Some(known) = known
        && !boot_id.is_empty()
        && known.boot_id == boot_id
        && known.permissions == permissions
    {
        return known.judgement;
    }
    let judgement = judge_now(kvm);
    let cached = Cached { boot_id, permissions, judgement };
    let text = serde_json::to_vec_pretty(&cached).expect("plain data becomes JSON");
    if let Err(error) = sys::file::write_atomic(cache, &text, 0o600) {
        tracing::warn!(cache = %cache.display(), %error, "the judgement on KVM is not cached");
    }
    cached.judgement
}

fn judge_now(kvm: &Path) -> Judgement {
    let device = match fs::metadata(kvm) {
        Ok(data) if data.file_type().is_char_device() => data,
        Ok(_) => return no_device(kvm),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return no_device(kvm),
        Err(error) => return failed(kvm, &sys::Error::new("look at", kvm.display(), error)),
    };
    let rate = match measure_with_deadline(kvm) {
        Ok(rate) if rate >= RATE_MIN => rate,
        Ok(rate) => return slow(rate),
        Err(error) => return failed(kvm, &error),
    };
    let device_group = match (device.mode() & 0o006, device.mode() & 0o060) {
        (0o006, _) => None,
        (_, 0o060) => Some(device.gid()),
        _ => return no_permission(kvm, device.mode()),
    };
    let reason = "KVM runs guests at the speed of the processor.".to_owned();
    let works = judgement(Verdict::Works, reason, String::new());
    Judgement { iterations_per_second: Some(rate), device_group, ..works }
}

/// The measuring thread is given up, not joined, when the deadline passes: it sits in the kernel.
fn measure_with_deadline(kvm: &Path) -> sys::Result<f64> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let path = kvm.to_owned();
    let measure = move || {
        let speed = sys::kvm::measure(&path, MEASURE_FOR);
        // Nobody listens any more if the deadline has passed.
        let _ = sender.send(speed);
    };
    let thread = thread::Builder::new().name("kvm-speed".to_owned()).spawn(measure);
    thread.map_err(|error| sys::Error::new("start", "a thread", error))?;
    match receiver.recv_timeout(MEASURE_DEADLINE) {
        // Whole loops: a fraction would not survive the cache file unchanged.
        Ok(speed) => Ok(speed?.per_second().round()),
        Err(_) => Ok(0.0),
    }
}

fn no_device(kvm: &Path) -> Judgement {
    without_device(kvm, &fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// The processor says whose virtualization it has; where it says nothing, the firmware has switched that off.
fn without_device(kvm: &Path, cpuinfo: &str) -> Judgement {
    let has = |flag: &str| cpuinfo.split_ascii_whitespace().any(|word| word == flag);
    let hint = if has("vmx") {
        "Load the kernel's module for Intel's processors: `modprobe kvm_intel`."
    } else if has("svm") {
        "Load the kernel's module for AMD's processors: `modprobe kvm_amd`."
    } else {
        "Switch on virtualization (Intel VT-x, AMD-V or SVM) in the machine's firmware set-up; if this machine is itself \
         virtual, switch on nested virtualization on its host."
    };
    judgement(Verdict::NoDevice, format!("there is no {}", kvm.display()), hint.to_owned())
}

fn no_permission(kvm: &Path, mode: u32) -> Judgement {
    let path = kvm.display();
    let reason = format!("{path} (mode {:o}) cannot be opened by an unprivileged QEMU", mode & 0o777);
    let hint = format!("Give it to a group: `groupadd -fr kvm; chgrp kvm {path}; chmod 660 {path}`.");
    judgement(Verdict::NoPermission, reason, hint)
}

fn slow(rate: f64) -> Judgement {
    let reason = format!(
        "/dev/kvm opens, and runs guest code at {:.1} million loops a second where a processor does hundreds of millions",
        rate / 1e6
    );
    let hint =
        "This machine is virtual and its host emulates nested guests: switch on nested virtualization there \
                (`kvm_intel.nested=1` or `kvm_amd.nested=1` and a host CPU model), or use bare metal."
            .to_owned();
    Judgement { iterations_per_second: Some(rate), ..judgement(Verdict::Slow, reason, hint) }
}

fn failed(kvm: &Path, error: &sys::Error) -> Judgement {
    let path = kvm.display();
    match error.errno() {
        Some(ENODEV | ENXIO) => no_device(kvm),
        _ if error.kind() == io::ErrorKind::PermissionDenied => judgement(
            Verdict::NoPermission,
            format!("{path} may not be opened: {}", error.source),
            "Run holm as root or as a member of the group `kvm`.".to_owned(),
        ),
        _ => judgement(
            Verdict::Broken,
            format!("{path} does not run guests: {error}: {}", error.source),
            "See `dmesg | grep -i kvm`; another hypervisor may hold the processor's virtualization."
                .to_owned(),
        ),
    }
}

/// The kernel has no such device although the node exists (errno(3)).
const ENODEV: i32 = 19;
/// As above, of a node whose driver is not loaded.
const ENXIO: i32 = 6;

fn judgement(verdict: Verdict, reason: String, hint: String) -> Judgement {
    Judgement { verdict, reason, hint, iterations_per_second: None, device_group: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_device_is_told_with_the_fix_and_kvm_on_demand_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let found = judge(&scratch.path().join("kvm"), &scratch.path().join("cache"));
        assert_eq!(found.verdict, Verdict::NoDevice);
        assert!(!found.hint.is_empty());
        assert_eq!(found.choose(Wanted::Auto).unwrap(), Accelerator::Tcg);
        let refusal = found.choose(Wanted::Kvm).unwrap_err().to_string();
        assert!(refusal.contains("there is no"), "{refusal}");
        assert!(found.describe(Accelerator::Tcg).contains("slower than KVM"));
    }

    #[test]
    fn this_host_is_judged_once_per_boot() {
        let scratch = tempfile::tempdir().unwrap();
        let cache = scratch.path().join("cache");
        let first = judge(Path::new("/dev/kvm"), &cache);
        assert!(!first.reason.is_empty(), "{first:?}");
        let text = fs::read_to_string(&cache).unwrap();
        assert_eq!(judge(Path::new("/dev/kvm"), &cache), first, "{text}");
        let marked = text.replace(&first.reason, "from the cache");
        fs::write(&cache, &marked).unwrap();
        assert_eq!(judge(Path::new("/dev/kvm"), &cache).reason, "from the cache");
        let stale = marked.replace("boot_id\": \"", "boot_id\": \"another-");
        fs::write(&cache, stale).unwrap();
        assert_ne!(judge(Path::new("/dev/kvm"), &cache).reason, "from the cache");
    }

    #[test]
    fn what_blocks_kvm_is_told_with_the_fix_of_this_processor() {
        for (cpuinfo, fix) in [
            ("flags\t\t: fpu vme vmx smx", "modprobe kvm_intel"),
            ("flags\t\t: fpu svm extapic", "modprobe kvm_amd"),
            ("flags\t\t: fpu vme hypervisor", "firmware"),
        ] {
            let found = without_device(Path::new("/dev/kvm"), cpuinfo);
            assert!(found.hint.contains(fix), "{cpuinfo}: {}", found.hint);
        }
        let found = no_permission(Path::new("/dev/kvm"), 0o20600);
        assert_eq!(found.verdict, Verdict::NoPermission);
        assert!(found.hint.contains("chgrp kvm /dev/kvm"), "{}", found.hint);
    }

    #[test]
    fn a_device_that_works_is_hardware_virtualization() {
        let works = judgement(Verdict::Works, "KVM runs guests.".into(), String::new());
        assert_eq!(works.choose(Wanted::Auto).unwrap(), Accelerator::Kvm);
        assert_eq!(works.describe(Accelerator::Kvm), "KVM, hardware virtualization on");
        assert!(works.describe(works.choose(Wanted::Tcg).unwrap()).contains("as was asked"));
    }

    #[test]
    fn a_slow_device_falls_back_and_says_why() {
        let found = slow(0.3e6);
        assert_eq!(found.choose(Wanted::Auto).unwrap(), Accelerator::Tcg);
        assert!(found.reason.contains("0.3 million"), "{}", found.reason);
        assert!(found.hint.contains("nested"));
    }
}
