//! Loads a system call filter (seccomp, classic BPF) into the calling process.

use super::process::check;
use std::io;

/// One instruction of classic BPF, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions skipped when a comparison holds.
    pub jump_true: u8,
    /// Instructions skipped when it does not.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

/// Longest program that the kernel takes (`BPF_MAXINSNS`).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Filters every further system call of this process and its children. Needs no_new_privs, or `CAP_SYS_ADMIN` in
/// the process's user namespace.
pub fn load(program: &[Instruction]) -> io::Result<()> {
    if program.is_empty() || program.len() > INSTRUCTIONS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a filter has 1 to 4096 instructions"));
    }
    let description =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr() as *mut libc::sock_filter };
    // SAFETY: Instruction has the layout of sock_filter, and the length is the slice's. The kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &description) };
    check(result as i32)
}
