//! What the files of a system container say of who it is: written before its init starts, in the shim.
//!
//! ```text
//!   before its first boot   host name, machine id, SSH host key, keys that are let in (cloud-init does that where it is), and
//!                           no disks of the machine that the image was made of
//!   before every boot       /etc/hosts and /etc/resolv.conf, as long as they are holm's
//! ```
//!
//! An image is one for many, so nothing of it may tell one instance from another; and what was written once is the
//! instance's own from then on. The mark that it was lies beside its files, where nobody inside sees it. All of it is written
//! by a process of its own as root inside, because files of a mount with shifted ids cannot be made by the host's root.

use super::{
    bundle::{Container, Pod},
    host_key::HostKey,
    root::{self, Root, RootError, Step},
    system, user,
};
use model::plan::SystemPlan;
use rustix::fs::{AtFlags, Mode, OFlags, RawMode};
use std::{
    fs,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};
use sys::jail::{
    privilege,
    process::{self, Fork},
    tree,
};

/// Name of the mark, beside the directory of what the container writes.
const MARK: &str = "booted";
/// First line of what is written again before every boot.
const OURS: &str = "# Written by holm before every start. Without this line it is left as it is.\n";
/// Most files that are looked at in a directory of host keys.
const HOST_KEYS_MAX: usize = 1000;
/// Most bytes of what a child tells.
const TOLD_BYTES_MAX: u64 = 4096;

/// Who is told apart: ids inside.
#[derive(Debug, Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

const ROOT: Owner = Owner { uid: 0, gid: 0 };

/// Writes what is to be there before the init runs.
pub(super) fn write(pod: &Pod, container: &Container, root: &Root) -> Result<(), RootError> {
    let Some(system) = &container.system else { return Ok(()) };
    let mark = root::upper_of(pod, container).join(MARK);
    let is_first = !mark.exists();
    let work = || {
        privilege::make_files_as(pod.ids.base, pod.ids.base).step(|| "become root inside".into())?;
        let files = Files { root, base: pod.ids.base, count: pod.ids.count };
        if is_first {
            files.name_it(pod, system)?;
            files.forget_disks()?;
            files.let_in(system)?;
        }
        files.write_network(pod, is_first)
    };
    apart(work).step(|| "write who it is into its files".into())?;
    if is_first {
        fs::write(&mark, "").step(|| format!("write {}", mark.display()))?;
    }
    Ok(())
}

/// Does work in a child, whose ids may change.
fn apart(work: impl FnOnce() -> Result<(), RootError>) -> io::Result<()> {
    let (told, mut telling) = io::pipe()?;
    let child = Fork::default().spawn(|| match work() {
        Ok(()) => 0,
        Err(error) => {
            // Nobody is left to tell when this fails.
            let _ = telling.write_all(root::told(&error).as_bytes());
            1
        }
    })?;
    drop(telling);
    let mut message = String::new();
    let read = told.take(TOLD_BYTES_MAX).read_to_string(&mut message);
    let ended = process::wait(child, true)?;
    match ended {
        Some(process::Ended::Code(0)) => read.map(|_| ()),
        _ if message.is_empty() => Err(io::Error::other("the process that writes ended")),
        _ => Err(io::Error::other(message)),
    }
}

/// The files of the instance, as seen from outside.
struct Files<'a> {
    root: &'a Root,
    base: u32,
    count: u32,
}

impl Files<'_> {
    /// Host name, machine id and host key.
    fn name_it(&self, pod: &Pod, system: &SystemPlan) -> Result<(), RootError> {
        self.put("/etc/hostname", &format!("{}\n", pod.hostname), 0o644, ROOT)?;
        let id = format!("{}\n", system.machine_id);
        self.put("/etc/machine-id", &id, 0o444, ROOT)?;
        if self.is_plain_file("/var/lib/dbus/machine-id") {
            self.put("/var/lib/dbus/machine-id", &id, 0o444, ROOT)?;
        }
        self.remove_host_keys("/etc/dropbear")?;
        if self.remove_host_keys("/etc/ssh")? {
            let key = HostKey::of_seed(&rand::random(), &format!("root@{}", pod.hostname));
            self.put("/etc/ssh/ssh_host_ed25519_key", &key.private, 0o600, ROOT)?;
            self.put("/etc/ssh/ssh_host_ed25519_key.pub", &key.public, 0o644, ROOT)?;
        }
        Ok(())
    }

    /// Takes out of the table of file systems what was another machine's.
    fn forget_disks(&self) -> Result<(), RootError> {
        const TABLE: &str = "/etc/fstab";
        if !self.is_plain_file(TABLE) {
            return Ok(());
        }
        match system::without_disks(&self.root.text(TABLE).step(|| format!("read {TABLE}"))?) {
            Some(text) => self.put(TABLE, &text, 0o644, ROOT),
            None => Ok(()),
        }
    }

    /// Puts the keys to where the SSH server looks for them, beside those that the image lets in.
    fn let_in(&self, system: &SystemPlan) -> Result<(), RootError> {
        if system.keys.is_empty() || self.has_cloud_init() {
            return Ok(());
        }
        let identity = self.identity(&system.login).or_else(|| self.identity("root")).unwrap_or_default();
        let owner = Owner { uid: identity.uid, gid: identity.gid };
        let home = if identity.home.is_empty() { "/root" } else { &identity.home };
        let directory = Path::new(home).join(".ssh");
        let host = (self.base + owner.uid, self.base + owner.gid);
        tree::make_directory_in_root(self.root.as_fd(), &directory, 0o700, host)
            .step(|| format!("make {}", directory.display()))?;
        let file = directory.join("authorized_keys").to_string_lossy().into_owned();
        let mut text = self.root.text(&file).step(|| format!("read {file}"))?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let new = system.keys.iter().filter(|key| !text.lines().any(|line| line == key.trim()));
        let new: String = new.map(|key| format!("{}\n", key.trim())).collect();
        self.put(&file, &(text + &new), 0o600, owner)
    }

    /// Whether cloud-init does that: it is there, and its image does not keep it from running.
    fn has_cloud_init(&self) -> bool {
        self.open("/usr/bin/cloud-init").is_ok() && self.open("/etc/cloud/cloud-init.disabled").is_err()
    }

    fn identity(&self, name: &str) -> Option<user::Identity> {
        let passwd = self.root.text("/etc/passwd").ok()?;
        user::resolve(name, &passwd, "", self.count).ok()
    }

    /// Names and addresses, unless somebody inside has put others there.
    fn write_network(&self, pod: &Pod, is_first: bool) -> Result<(), RootError> {
        for (path, text) in [("/etc/hosts", &pod.hosts), ("/etc/resolv.conf", &pod.resolv_conf)] {
            // A link is somebody's who keeps the file itself; the image's own leads nowhere yet.
            let is_ours = self.is_plain_file(path)
                && self.root.text(path).step(|| format!("read {path}"))?.starts_with(OURS);
            if is_first || is_ours {
                self.put(path, &format!("{OURS}{text}"), 0o644, ROOT)?;
            }
        }
        Ok(())
    }

    /// Removes the host keys of a directory, and tells whether there is such a directory.
    fn remove_host_keys(&self, path: &str) -> Result<bool, RootError> {
        let Ok(directory) = self.directory(Path::new(path)) else { return Ok(false) };
        let at = || format!("remove the image's host keys in {path}");
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory).step(at)?.take(HOST_KEYS_MAX) {
            let name = entry.step(at)?.file_name().to_owned();
            let text = name.to_string_lossy();
            if text.contains("host") && (text.ends_with("_key") || text.ends_with("_key.pub")) {
                names.push(name);
            }
        }
        for name in names {
            rustix::fs::unlinkat(&directory, &name, AtFlags::empty()).step(at)?;
        }
        Ok(true)
    }

    fn open(&self, path: &str) -> io::Result<OwnedFd> {
        tree::open_in_root(self.root.as_fd(), Path::new(path), libc::O_PATH, 0)
    }

    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        tree::open_in_root(self.root.as_fd(), path, libc::O_RDONLY | libc::O_DIRECTORY, 0)
    }

    /// Whether there is a file, and no link.
    fn is_plain_file(&self, path: &str) -> bool {
        let handle =
            tree::open_in_root(self.root.as_fd(), Path::new(path), libc::O_PATH | libc::O_NOFOLLOW, 0);
        let seen = handle.and_then(|handle| Ok(rustix::fs::fstat(&handle)?));
        seen.is_ok_and(|seen| rustix::fs::FileType::from_raw_mode(seen.st_mode).is_file())
    }

    /// Puts a file in place of what is there, be it a link.
    fn put(&self, path: &str, text: &str, mode: RawMode, owner: Owner) -> Result<(), RootError> {
        self.try_put(Path::new(path), text, mode, owner).step(|| format!("write {path}"))
    }

    fn try_put(&self, path: &Path, text: &str, mode: RawMode, owner: Owner) -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let owner = (self.base + owner.uid, self.base + owner.gid);
        let parent = tree::make_directory_in_root(self.root.as_fd(), parent, 0o755, (self.base, self.base))?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Err(error) if error != rustix::io::Errno::NOENT => return Err(error.into()),
            _ => {}
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))?;
        let mut file = fs::File::from(file);
        file.write_all(text.as_bytes())?;
        std::os::unix::fs::fchown(file.as_fd(), Some(owner.0), Some(owner.1))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(())
    }
}
