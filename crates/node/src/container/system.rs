//! What a system container has in place of a container of one program. Pure: mounts, powers' limits and signals as rules.
//!
//! Its first process is an init, which mounts, makes control groups and users' sessions, and reboots. All that happens in
//! namespaces of its own: the kernel asks for the powers of the user namespace that owns them, and for the host's own where
//! something is not cut apart. So little is hidden here beside what the kernel refuses in any case; what an init finds is as
//! LXC and systemd-nspawn lay it out (<https://systemd.io/CONTAINER_INTERFACE>), since inits know that.

use super::bundle::{DEFAULT_PATH, Mount, Source};
use model::id::InstanceId;
use std::path::Path;

/// Where an init is looked for, in this order; the kernel's own places, and systemd's where nothing leads to it.
pub const INITS: [&str; 5] =
    ["/sbin/init", "/etc/init", "/bin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd"];

/// Name of sysvinit's program, which no other init has for its own.
const SYSVINIT: &str = "init";

/// Mounts in the order in which they are made. What an init would mount over if it had to is there.
pub fn mounts(memory_mib: u64) -> Vec<Mount> {
    let mount = |target: &str, source, read_only, no_devices, no_exec| Mount {
        target: target.into(),
        source,
        read_only,
        no_suid: true,
        no_devices,
        no_exec,
    };
    // It is memory of the instance, and counts as that; the sizes are those that systemd gives.
    let memory = |part: u64, roots| Source::Memory { size_bytes: (memory_mib << 20) / part, roots };
    vec![
        mount("/proc", Source::Processes, false, true, true),
        mount("/dev", Source::Devices, false, false, true),
        mount("/dev/pts", Source::Terminals, false, false, true),
        mount("/dev/mqueue", Source::MessageQueues, false, true, true),
        mount("/dev/shm", memory(2, false), false, true, false),
        // udev leaves devices alone where this cannot be written: they are the host's.
        mount("/sys", Source::KernelObjects, true, true, true),
        mount("/sys/fs/cgroup", Source::ControlGroups, false, true, true),
        mount("/run", memory(5, true), false, true, false),
        mount("/run/lock", Source::Memory { size_bytes: 5 << 20, roots: false }, false, true, true),
        mount("/tmp", memory(2, false), false, true, false),
    ]
}

/// Paths that are hidden, that cannot be written, and that can be written below these. The kernel's switches are the host's,
/// but for those of the network.
pub fn paths() -> [&'static [&'static str]; 3] {
    [&["/proc/kcore", "/proc/keys"], &["/proc/sys", "/proc/sysrq-trigger"], &["/proc/sys/net"]]
}

/// The environment of an init. What the user wants of it comes last.
pub fn environment(wanted: &[(String, String)], id: InstanceId) -> Vec<(String, String)> {
    let own = [
        ("PATH", DEFAULT_PATH.to_string()),
        ("TERM", "linux".into()),
        // The word that every init knows as "a system container": OpenRC leaves out what needs hardware only for words that
        // it knows, systemd for any.
        ("container", "lxc".into()),
        ("container_uuid", id.to_string()),
        // Tells cloud-init that OpenStack's metadata service answers here, as the DMI of a VM does.
        ("product_name", "OpenStack Nova".into()),
    ];
    let mut env: Vec<(String, String)> = own.map(|(key, value)| (key.to_string(), value)).to_vec();
    for (key, value) in wanted {
        env.retain(|(known, _)| known != key);
        env.push((key.clone(), value.clone()));
    }
    env
}

/// A table of file systems (fstab(5)) without those of disks, which a system container never has: its init would wait for them, or
/// say that something failed. `None` where there are none. The lines stay to be read, behind hash marks.
pub fn without_disks(fstab: &str) -> Option<String> {
    const DISKS: [&str; 6] = ["/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID="];
    let is_disk = |line: &str| DISKS.iter().any(|disk| line.trim_start().starts_with(disk));
    if !fstab.lines().any(is_disk) {
        return None;
    }
    let mut text =
        String::from("# Lines of disks were put behind hash marks by holm: a system container has none.\n");
    for line in fstab.lines() {
        let mark = if is_disk(line) { "# " } else { "" };
        text.extend([mark, line, "\n"]);
    }
    Some(text)
}

/// The signal that asks an init to power off, by the name of its program when links are followed.
pub fn stop_signal(program: &Path) -> i32 {
    const REALTIME_MIN: i32 = 34;
    match name_of(program) {
        // systemd(1), SIGNALS: starts poweroff.target.
        "systemd" => REALTIME_MIN + 3,
        // busybox, init/init.c: SIGTERM would reboot.
        "busybox" => libc::SIGUSR2,
        // init(8): the line for a power failure, which LXC uses too.
        SYSVINIT => libc::SIGPWR,
        _ => libc::SIGTERM,
    }
}

/// Whether an init has run levels that it can be asked for, by the name of its program when links are followed.
pub fn has_run_levels(program: &Path) -> bool {
    name_of(program) == SYSVINIT
}

fn name_of(program: &Path) -> &str {
    program.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_init_has_its_signal() {
        for (program, signal) in [
            ("/run/pods/1/root/main/usr/lib/systemd/systemd", 37),
            ("/bin/busybox", libc::SIGUSR2),
            ("/sbin/init", libc::SIGPWR),
            ("/sbin/openrc-init", libc::SIGTERM),
            ("/usr/bin/tini", libc::SIGTERM),
        ] {
            assert_eq!(stop_signal(Path::new(program)), signal, "{program}");
            assert_eq!(has_run_levels(Path::new(program)), program == "/sbin/init", "{program}");
        }
    }

    #[test]
    fn disks_of_another_machine_are_not_waited_for() {
        let table =
            "# root\nUUID=1-2 / ext4 defaults 0 1\n/dev/sda2 none swap sw 0 0\ntmpfs /srv tmpfs size=1m 0 0";
        let without = without_disks(table).expect("another one");
        let lines: Vec<&str> = without.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "# root",
                "# UUID=1-2 / ext4 defaults 0 1",
                "# /dev/sda2 none swap sw 0 0",
                "tmpfs /srv tmpfs size=1m 0 0"
            ]
        );
        for same in ["", "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n", "tmpfs /srv tmpfs size=1m 0 0\n", &without]
        {
            assert_eq!(without_disks(same), None, "{same}");
        }
    }

    #[test]
    fn the_users_environment_comes_last() {
        let id = InstanceId::from_random([1; 16]);
        let env = environment(&[("TERM".into(), "vt220".into()), ("A".into(), "b".into())], id);
        let of = |name: &str| {
            env.iter().filter(|(key, _)| key == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>()
        };
        assert_eq!((of("TERM"), of("A"), of("container")), (vec!["vt220"], vec!["b"], vec!["lxc"]));
        assert_eq!(of("container_uuid"), [id.to_string()]);
    }
}
