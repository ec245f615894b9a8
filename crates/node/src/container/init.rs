//! A first process that does nothing of its own: it hands signals on to one program, collects what nobody waits for, and
//! ends with the program. Or it has no program, and holds the processes of the containers that share them.
//!
//! It is a copy of the shim that never runs another program, so an image needs no init of its own and no file of the host
//! is shown to containers. Nobody inside can look into it: what it once could reach, its memory and its program's file
//! included, stays the host's (`PR_SET_DUMPABLE`, and the user namespace that its memory was made in).

use std::{fs, io, os::unix::fs::FileExt};
use sys::jail::{
    init::{collect_any, hold_signals, next_signal, send},
    process::Ended,
};

/// What a list of processes shows of it.
const NAME: &str = "init";
/// Most bytes of arguments that are written over.
const ARGUMENTS_BYTES_MAX: usize = 8192;

/// Shows a name of its own instead of the shim's command line, which tells where things are on the host. Called while
/// this process still has the host's powers; what it forks afterwards shows the same.
pub(super) fn take_name() {
    // It is only shown: where it cannot be set, all works as well.
    show_arguments(&[NAME.as_bytes()]);
    let _ = fs::write("/proc/self/comm", NAME);
}

/// Shows other arguments than this program was started with, as far as there is room where those are. They are only shown:
/// where that cannot be, all works as well.
pub(super) fn show_arguments(arguments: &[&[u8]]) {
    let _ = write_arguments(&arguments.join(&0));
}

/// Writes over the arguments (proc_pid_stat(5), `arg_start` and `arg_end`).
fn write_arguments(shown: &[u8]) -> io::Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name of the program may have spaces and brackets; numbers are counted from behind it.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let number =
        |field: usize| rest.split(' ').nth(field - 3).and_then(|text| text.trim().parse::<u64>().ok());
    let (Some(start), Some(end)) = (number(48), number(49)) else { return Ok(()) };
    let length = usize::try_from(end.saturating_sub(start)).unwrap_or(0).min(ARGUMENTS_BYTES_MAX);
    let mut text = vec![0; length];
    let length = length.min(shown.len());
    text[..length].copy_from_slice(&shown[..length]);
    fs::File::options().write(true).open("/proc/self/mem")?.write_all_at(&text, start)
}

/// Keeps signals for [`serve`] from now on: what comes before it is not lost.
pub(super) fn hold() -> io::Result<()> {
    hold_signals()
}

/// Serves until `program` has ended, and gives its exit code. Without one it serves for ever.
pub(super) fn serve(program: Option<i32>) -> i32 {
    loop {
        // A program that ended before signals were held is collected here.
        while let Some((pid, ended)) = collect_any() {
            if Some(pid) == program {
                return match ended {
                    Ended::Code(code) => code,
                    // The first process of a namespace cannot end itself by a signal.
                    Ended::Signal(signal) => 128 + signal,
                };
            }
        }
        match (next_signal(), program) {
            (Some(libc::SIGCHLD) | None, _) | (_, None) => {}
            (Some(signal), Some(program)) => send(program, signal),
        }
    }
}
