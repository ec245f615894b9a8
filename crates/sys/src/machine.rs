//! What the first process of a machine does to its kernel: modules, the clock, the host name, the power.
//!
//! For a guest's own init alone: nothing here is ever called on a host, whose owner has all of it in hand.

use std::io;

use crate::error::{Context, Error, Result, check};

/// Gives a module (an ELF file, not compressed) to the kernel. One that is there already is fine. Source:
/// init_module(2).
pub fn load_module(name: &str, image: &[u8]) -> Result<()> {
    // SAFETY: the image is valid for its length, and the parameters are an empty C string.
    let result = unsafe { libc::syscall(libc::SYS_init_module, image.as_ptr(), image.len(), c"".as_ptr()) };
    match check("load module", name, result) {
        Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
        result => result.map(drop),
    }
}

/// Sets the machine's clock to a time in nanoseconds since 1970.
pub fn set_clock(now_ns: i64) -> Result<()> {
    const SECOND_NS: i64 = 1_000_000_000;
    let time = libc::timespec { tv_sec: now_ns.div_euclid(SECOND_NS), tv_nsec: now_ns.rem_euclid(SECOND_NS) };
    // SAFETY: the record is valid.
    let result = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &time) };
    check("set", "the clock", result.into()).map(drop)
}

/// Sets the machine's host name.
pub fn set_hostname(name: &str) -> Result<()> {
    nix::unistd::sethostname(name).context("set host name", name)
}

/// Kills every process but this one, the machine's first.
///
/// # Errors
/// For a process that is not the first: it would end whatever it may.
pub fn kill_all_others() -> Result<()> {
    if std::process::id() != 1 {
        return Err(Error::invalid("kill", "all processes", "only the machine's first process may"));
    }
    // SAFETY: takes integers.
    match unsafe { libc::kill(-1, libc::SIGKILL) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            none if none.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(Error::new("kill", "all processes", error)),
        },
    }
}

/// Takes the machine's power away, at once: what was not written to a disk is lost. Source: reboot(2).
///
/// # Errors
/// For a process that is not the first, and where the kernel refuses.
pub fn power_off() -> Result<()> {
    if std::process::id() != 1 {
        return Err(Error::invalid("power off", "the machine", "only the machine's first process may"));
    }
    // SAFETY: takes an integer.
    check("power off", "the machine", unsafe { libc::reboot(libc::RB_POWER_OFF) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_the_first_process_ends_nothing() {
        for refused in [kill_all_others(), power_off()] {
            assert_eq!(refused.expect_err("a test").kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn what_is_no_module_is_refused_with_its_name() {
        let error = load_module("nothing", b"text").expect_err("no module");
        assert_eq!(error.to_string(), "cannot load module nothing");
    }
}
