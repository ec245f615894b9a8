//! Terminals: pairs for programs that want one, their size, and the raw mode of the user's own.
//!
//! [`RawMode`] changes the terminal of the whole session; it is given back when the guard is dropped, by a panic too.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, unlockpt};
use nix::sys::termios::{self, SetArg, Termios};

use crate::error::{Context, Result, check};

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// How high.
    pub rows: u16,
    /// How wide.
    pub columns: u16,
}

impl Default for Size {
    fn default() -> Size {
        Size { rows: 24, columns: 80 }
    }
}

/// A new terminal and its other end.
#[derive(Debug)]
pub struct Pair {
    /// The end that stands for screen and keyboard.
    pub controller: OwnedFd,
    /// The end that is a program's standard streams.
    pub terminal: OwnedFd,
}

/// Makes a terminal of this size. Nobody's controlling terminal changes.
pub fn open_pair(size: Size) -> Result<Pair> {
    let controller =
        posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).context("open", "terminal pair")?;
    grantpt(&controller).context("grant", "terminal")?;
    unlockpt(&controller).context("unlock", "terminal")?;
    // By descriptor and not by path: the path may mean another terminal in another mount namespace.
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes flags by value and touches no memory of ours.
    let result = unsafe { libc::ioctl(controller.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    let number = check("open", "terminal", result.into())?;
    // SAFETY: the kernel has just returned this descriptor, so it is open and ours alone.
    let terminal = unsafe { OwnedFd::from_raw_fd(number as i32) };
    set_size(&terminal, size)?;
    Ok(Pair { controller: OwnedFd::from(controller), terminal })
}

/// The size of the terminal; an error of kind `Uncategorized` (ENOTTY) for what is no terminal.
pub fn size(terminal: impl AsFd) -> Result<Size> {
    // SAFETY: winsize is plain data for which all zeros is a valid value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize, which lives through the call.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    check("get size of", "terminal", result.into())?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Sets the size; the programs in the terminal get SIGWINCH if it is another.
pub fn set_size(terminal: impl AsFd, size: Size) -> Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives through the call.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check("set size of", "terminal", result.into()).map(drop)
}

/// Whether the file is a terminal.
pub fn is_terminal(file: impl AsFd) -> bool {
    std::io::IsTerminal::is_terminal(&file.as_fd())
}

/// A terminal in raw mode: every key arrives as it is and at once, nothing is echoed, no key is a signal. Ends with the value.
#[derive(Debug)]
pub struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    /// Enters raw mode.
    pub fn enter(terminal: BorrowedFd<'a>) -> Result<RawMode<'a>> {
        let before = termios::tcgetattr(terminal).context("get mode of", "terminal")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(terminal, SetArg::TCSADRAIN, &raw).context("set raw mode of", "terminal")?;
        Ok(RawMode { terminal, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // The terminal may be gone, and then there is nothing to give back.
        let _ = termios::tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}
