//! What holds the processes of a pod whose containers see each other's: the first process of their namespace, which ends
//! with the pod.
//!
//! It has no program, no file, no powers, and an empty directory as its root. Containers come and go; what they leave
//! behind is collected by it, and killed by the shim with its container.

use super::{
    bundle::{Limits, Pod},
    cgroup::PodGroup,
    init,
    process::{Message, PodNamespaces, StartError, failed, pair, receive, report},
};
use std::{
    convert::Infallible,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
};
use sys::jail::{
    privilege,
    process::{self, Fork, namespace},
};

/// Its control group, beside those of the containers: none of these can be called so.
const GROUP: &str = "@init";

/// The process, ended when this is dropped.
#[derive(Debug)]
pub(super) struct Holder {
    /// The namespace whose first process it is.
    pub namespace: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = process::signal_pidfd(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = process::wait(self.pid, true);
    }
}

impl Holder {
    /// Starts it in the pod's namespaces.
    pub fn start(pod: &Pod, shared: &PodNamespaces, group: &PodGroup) -> Result<Self, StartError> {
        group.add_container(GROUP, &Limits::default()).map_err(failed("make the cgroup"))?;
        let (ours, theirs) = pair().map_err(failed("make a socket pair"))?;
        let gate = Fork::default()
            .spawn(|| match pass_gate(pod, shared, &theirs) {
                Ok(()) => 0,
                Err(error) => {
                    report(&theirs, b'E', 125, &format!("hold the pod's processes: {error}"));
                    1
                }
            })
            .map_err(failed("fork"))?;
        drop(theirs);
        let first = receive(&ours);
        process::wait(gate, true).map_err(failed("collect a child"))?;
        let pid = match first? {
            Message::Pid(pid) => pid,
            other => return Err(other.unexpected()),
        };
        let pidfd = process::open_pidfd(pid).map_err(failed("open the new process"))?;
        let opened = fs::File::open(format!("/proc/{pid}/ns/pid")).map(OwnedFd::from);
        // Dropped from here on, it is ended.
        let holder = match opened {
            Ok(namespace) => Self { namespace, pid, pidfd },
            Err(error) => {
                let _ = process::signal_pidfd(pidfd.as_fd(), libc::SIGKILL);
                let _ = process::wait(pid, true);
                return Err(failed("open a namespace")(error));
            }
        };
        group.admit(GROUP, pid).map_err(failed("put the new process into its cgroup"))?;
        ours.send(b"G").map_err(failed("let the new process go on"))?;
        match receive(&ours)? {
            Message::Ready => Ok(holder),
            other => Err(other.unexpected()),
        }
    }
}

/// Joins the pod and makes the process, which becomes a child of the shim.
fn pass_gate(pod: &Pod, shared: &PodNamespaces, shim: &UnixDatagram) -> io::Result<()> {
    let handles =
        [(&shared.user, namespace::USER), (&shared.uts, namespace::UTS), (&shared.ipc, namespace::IPC)];
    let keep: Vec<i32> = handles.iter().map(|(fd, _)| fd.as_raw_fd()).chain([shim.as_raw_fd()]).collect();
    privilege::close_others(3, &keep)?;
    init::take_name();
    privilege::set_dumpable(false)?;
    for (handle, kind) in handles {
        process::join(handle.as_fd(), kind)?;
    }
    let pid = Fork { namespaces: namespace::PID, sibling: true, cgroup: None }.spawn(|| {
        let Err(error) = hold(pod, shim);
        report(shim, b'E', 125, &format!("hold the pod's processes: {error}"));
        1
    })?;
    report(shim, b'P', pid, "");
    Ok(())
}

/// Gives all up and stays.
fn hold(pod: &Pod, shim: &UnixDatagram) -> io::Result<Infallible> {
    let _ = shim.set_read_timeout(None);
    nix::unistd::setsid()?;
    if !matches!(shim.recv(&mut [0]), Ok(1)) {
        return Err(io::Error::other("the shim ended"));
    }
    // Whoever could look at its root directory would see nothing of the host.
    nix::unistd::chroot(&pod.places.run.join("void"))?;
    std::env::set_current_dir("/")?;
    privilege::new_session_keyring()?;
    privilege::reset_signals()?;
    init::hold()?;
    privilege::bound_capabilities(0)?;
    privilege::set_ids(0, 0, &[])?;
    privilege::set_capabilities(0)?;
    privilege::set_no_new_privileges()?;
    privilege::set_dumpable(false)?;
    report(shim, b'R', 0, "");
    privilege::close_others(0, &[])?;
    sys::jail::init::leave(init::serve(None))
}
