//! Which system calls a container may make: the default filter, as rules and as a classic BPF program.
//!
//! The rules allow what docker's default profile allows and are stricter in four places: `AF_ALG` sockets, io_uring,
//! other architectures than the host's own, and flags are compared in the 32 bits that the kernel looks at. What is
//! not named is refused: with `EPERM`, or `ENOSYS` when it is newer than this table, so that C libraries fall back.
//! The program is a binary search, made in microseconds: nothing needs to be cached.

use super::capability::Capabilities;
use std::collections::BTreeMap;
use sys::jail::filter::Instruction;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Allow,
    /// It fails with this errno.
    Fail(u16),
    /// The first check that holds decides, else the last verdict.
    Check(Vec<Check>, Box<Verdict>),
}

/// A comparison of the lower half of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Number of the argument, from 0.
    pub argument: u8,
    /// Bits that are looked at.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
    /// What then happens.
    pub verdict: Verdict,
}

/// Verdicts by system call number of the host's architecture.
pub type Rules = BTreeMap<u32, Verdict>;

const EPERM: u16 = libc::EPERM as u16;
const ENOSYS: u16 = libc::ENOSYS as u16;
/// The last call that this table knows (`file_setattr`, Linux 6.17).
const NEWEST: u32 = 469;

macro_rules! calls {
    ($($name:ident)*) => { [$(calls!(@ $name)),*] };
    (@ $name:ident) => { libc::$name as u32 };
}

/// Calls that every architecture has and every container may make.
const ALWAYS: &[u32] = &calls![
    SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_adjtime
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect
    SYS_copy_file_range SYS_dup SYS_dup3 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2
    SYS_eventfd2 SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64
    SYS_fallocate SYS_fanotify_mark SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl
    SYS_fdatasync SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs
    SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv SYS_getcpu SYS_getcwd SYS_getdents64 SYS_getegid
    SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid
    SYS_getpriority SYS_getrandom SYS_getresgid SYS_getresuid SYS_getrlimit SYS_get_robust_list SYS_getrusage
    SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid SYS_getxattr
    SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel SYS_ioctl SYS_io_destroy
    SYS_io_getevents SYS_ioprio_get SYS_ioprio_set SYS_io_setup SYS_io_submit SYS_kill
    SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat
    SYS_listen SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise
    SYS_membarrier SYS_memfd_create SYS_memfd_secret SYS_mincore SYS_mkdirat SYS_mknodat SYS_mlock SYS_mlock2
    SYS_mlockall SYS_mmap SYS_mprotect SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive
    SYS_mq_timedsend SYS_mq_unlink SYS_mremap SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock
    SYS_munlockall SYS_munmap SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2
    SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_ppoll
    SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_prlimit64 SYS_process_mrelease SYS_process_vm_readv
    SYS_process_vm_writev SYS_pselect6 SYS_ptrace SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead
    SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages SYS_removexattr
    SYS_renameat SYS_renameat2 SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigpending
    SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait
    SYS_rt_tgsigqueueinfo SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam
    SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getscheduler SYS_sched_rr_get_interval
    SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler SYS_sched_yield
    SYS_seccomp SYS_semctl SYS_semget SYS_semop SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto
    SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer SYS_setpgid SYS_setpriority SYS_setregid
    SYS_setresgid SYS_setresuid SYS_setreuid SYS_setrlimit SYS_set_robust_list SYS_setsid SYS_setsockopt
    SYS_set_tid_address SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown
    SYS_sigaltstack SYS_signalfd4 SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync
    SYS_sync_file_range SYS_syncfs SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete
    SYS_timer_getoverrun SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime
    SYS_timerfd_settime SYS_times SYS_tkill SYS_truncate SYS_umask SYS_uname SYS_unlinkat SYS_utimensat
    SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
];

/// Newer calls, which have one number on every architecture: cachestat, fchmodat2, map_shadow_stack, futex_wake,
/// futex_wait, futex_requeue, mseal and the four calls on extended attributes relative to a directory.
const ALWAYS_UNIFIED: &[u32] = &[451, 452, 453, 454, 455, 456, 462, 463, 464, 465, 466];

/// `io_pgetevents`, which the libc crate does not know everywhere.
const IO_PGETEVENTS: u32 = if cfg!(target_arch = "x86_64") { 333 } else { 292 };

/// The old calls of x86-64, which later architectures replaced.
#[cfg(target_arch = "x86_64")]
const ALWAYS_HERE: &[u32] = &calls![
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_ctl_old
    SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp
    SYS_get_thread_area SYS_inotify_init SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_modify_ldt
    SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select SYS_set_thread_area
    SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_HERE: &[u32] = &[];

/// Calls that come with a capability.
const WITH_CAPABILITY: &[(&str, &[u32])] = &[
    ("CAP_DAC_READ_SEARCH", &calls![SYS_open_by_handle_at]),
    (
        "CAP_SYS_ADMIN",
        &calls![
            SYS_bpf SYS_clone SYS_clone3 SYS_fanotify_init SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_mount
            SYS_mount_setattr SYS_move_mount SYS_open_tree SYS_perf_event_open SYS_quotactl SYS_quotactl_fd
            SYS_setdomainname SYS_sethostname SYS_setns SYS_syslog SYS_umount2 SYS_unshare
        ],
    ),
    ("CAP_SYS_BOOT", &calls![SYS_reboot]),
    ("CAP_SYS_CHROOT", &calls![SYS_chroot]),
    ("CAP_SYS_MODULE", &calls![SYS_delete_module SYS_init_module SYS_finit_module]),
    ("CAP_SYS_PACCT", &calls![SYS_acct]),
    ("CAP_SYS_PTRACE", &calls![SYS_kcmp SYS_pidfd_getfd SYS_process_madvise]),
    #[cfg(target_arch = "x86_64")]
    ("CAP_SYS_RAWIO", &calls![SYS_iopl SYS_ioperm]),
    ("CAP_SYS_TIME", &calls![SYS_settimeofday SYS_clock_settime]),
    ("CAP_SYS_TTY_CONFIG", &calls![SYS_vhangup]),
    ("CAP_SYS_NICE", &calls![SYS_get_mempolicy SYS_mbind SYS_set_mempolicy SYS_set_mempolicy_home_node]),
    ("CAP_SYSLOG", &calls![SYS_syslog]),
    ("CAP_BPF", &calls![SYS_bpf]),
    ("CAP_PERFMON", &calls![SYS_perf_event_open]),
];

/// The flags of `clone` that make namespaces.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
/// Values of `personality` that change nothing harmful: Linux, 32 bits, uname26, both, and "only tell".
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The default rules for a container with these capabilities.
pub fn default_rules(capabilities: Capabilities) -> Rules {
    let mut rules = Rules::new();
    for call in ALWAYS.iter().chain(ALWAYS_UNIFIED).chain(ALWAYS_HERE).chain([&IO_PGETEVENTS]) {
        rules.insert(*call, Verdict::Allow);
    }
    let check = |mask, value, verdict| Check { argument: 0, mask, value, verdict };
    // clone3's flags lie in memory, where a filter cannot look: C libraries fall back to clone.
    rules.insert(libc::SYS_clone3 as u32, Verdict::Fail(ENOSYS));
    rules.insert(
        libc::SYS_clone as u32,
        Verdict::Check(vec![check(NAMESPACE_FLAGS, 0, Verdict::Allow)], Box::new(Verdict::Fail(EPERM))),
    );
    rules.insert(
        libc::SYS_personality as u32,
        Verdict::Check(
            PERSONALITIES.map(|value| check(u32::MAX, value, Verdict::Allow)).to_vec(),
            Box::new(Verdict::Fail(EPERM)),
        ),
    );
    rules.insert(
        libc::SYS_socket as u32,
        Verdict::Check(
            [libc::AF_VSOCK, libc::AF_ALG]
                .map(|family| check(u32::MAX, family as u32, Verdict::Fail(EPERM)))
                .to_vec(),
            Box::new(Verdict::Allow),
        ),
    );
    for (capability, calls) in WITH_CAPABILITY {
        if capabilities.contains(capability) {
            rules.extend(calls.iter().map(|call| (*call, Verdict::Allow)));
        }
    }
    rules
}

/// What stays refused in a system container although `CAP_SYS_ADMIN`, which it has over its own namespaces, would let it:
/// these calls look into the host's kernel or need powers that only the host's root has, and an init does without.
const NOT_IN_SYSTEMS: &[u32] = &calls![
    SYS_bpf SYS_perf_event_open SYS_syslog SYS_open_by_handle_at SYS_quotactl SYS_quotactl_fd
];

/// The rules for a system container: those of its capabilities, with a way to another root directory, which services that
/// are shut in by systemd take.
pub fn system_rules(capabilities: Capabilities) -> Rules {
    let mut rules = default_rules(capabilities);
    rules.retain(|call, _| !NOT_IN_SYSTEMS.contains(call));
    rules.insert(libc::SYS_pivot_root as u32, Verdict::Allow);
    rules
}

/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: u32 = 0xc000_00f3;

const KILL_PROCESS: u32 = 0x8000_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_ALLOW: u32 = 0x7fff_0000;

fn load_word(offset: u32) -> Instruction {
    Instruction { code: 0x20, jump_true: 0, jump_false: 0, operand: offset }
}
fn and(mask: u32) -> Instruction {
    Instruction { code: 0x54, jump_true: 0, jump_false: 0, operand: mask }
}
fn jump_equal(value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code: 0x15, jump_true, jump_false, operand: value }
}
fn jump_at_least(value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code: 0x35, jump_true, jump_false, operand: value }
}
fn jump(distance: usize) -> Instruction {
    Instruction { code: 0x05, jump_true: 0, jump_false: 0, operand: distance as u32 }
}
fn give(value: u32) -> Instruction {
    Instruction { code: 0x06, jump_true: 0, jump_false: 0, operand: value }
}

/// Makes the program that carries out the rules.
pub fn compile(rules: &Rules) -> Vec<Instruction> {
    let mut program = vec![
        load_word(OFFSET_ARCHITECTURE),
        jump_equal(ARCHITECTURE, 1, 0),
        give(KILL_PROCESS),
        load_word(OFFSET_NUMBER),
    ];
    program.extend(search(&segments(rules)));
    program
}

/// The whole range of numbers as pieces with one verdict each: the first number of a piece, and the verdict.
fn segments(rules: &Rules) -> Vec<(u32, Verdict)> {
    let mut pieces: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |start: u32, verdict: Verdict| {
        if pieces.last().is_none_or(|(_, last)| *last != verdict) {
            pieces.push((start, verdict));
        }
    };
    let mut next = 0;
    for (number, verdict) in rules {
        if *number > next {
            push(next, Verdict::Fail(EPERM));
        }
        push(*number, verdict.clone());
        next = number + 1;
    }
    push(next, Verdict::Fail(EPERM));
    // Newer calls, and those of the x32 ABI, which start at bit 30.
    push(NEWEST + 1, Verdict::Fail(ENOSYS));
    pieces
}

fn search(pieces: &[(u32, Verdict)]) -> Vec<Instruction> {
    if let [(_, verdict)] = pieces {
        return leaf(verdict);
    }
    let (low, high) = pieces.split_at(pieces.len() / 2);
    let (below, above) = (search(low), search(high));
    let mut program = match u8::try_from(below.len()) {
        Ok(distance) => vec![jump_at_least(high[0].0, distance, 0)],
        // A conditional jump reaches 255 instructions, an unconditional one any.
        Err(_) => vec![jump_at_least(high[0].0, 0, 1), jump(below.len())],
    };
    program.extend(below);
    program.extend(above);
    program
}

fn leaf(verdict: &Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Allow => vec![give(RETURN_ALLOW)],
        Verdict::Fail(errno) => vec![give(RETURN_ERRNO | u32::from(*errno))],
        Verdict::Check(checks, otherwise) => {
            let mut program = Vec::new();
            for check in checks {
                // The lower half of an argument comes first on the little-endian machines that are supported.
                program.push(load_word(OFFSET_ARGUMENTS + 8 * u32::from(check.argument)));
                program.push(and(check.mask));
                let then = leaf(&check.verdict);
                program.push(jump_equal(check.value, 0, then.len() as u8));
                program.extend(then);
            }
            program.extend(leaf(otherwise));
            program
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[Instruction], architecture: u32, number: u32, argument: u64) -> u32 {
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                0x20 => {
                    accumulator = match step.operand {
                        OFFSET_NUMBER => number,
                        OFFSET_ARCHITECTURE => architecture,
                        OFFSET_ARGUMENTS => argument as u32,
                        offset => panic!("load of {offset}"),
                    }
                }
                0x54 => accumulator &= step.operand,
                0x05 => at += step.operand as usize,
                0x06 => return step.operand,
                code => {
                    let holds = match code {
                        0x15 => accumulator == step.operand,
                        0x35 => accumulator >= step.operand,
                        code => panic!("code {code}"),
                    };
                    at += usize::from(if holds { step.jump_true } else { step.jump_false });
                }
            }
        }
    }

    fn expected(rules: &Rules, number: u32, argument: u64) -> u32 {
        let value = |verdict: &Verdict| match verdict {
            Verdict::Allow => RETURN_ALLOW,
            Verdict::Fail(errno) => RETURN_ERRNO | u32::from(*errno),
            Verdict::Check(..) => panic!("checks do not nest"),
        };
        match rules.get(&number) {
            None if number > NEWEST => RETURN_ERRNO | u32::from(ENOSYS),
            None => RETURN_ERRNO | u32::from(EPERM),
            Some(Verdict::Check(checks, otherwise)) => {
                let hit = checks.iter().find(|check| argument as u32 & check.mask == check.value);
                value(hit.map_or(otherwise, |check| &check.verdict))
            }
            Some(verdict) => value(verdict),
        }
    }

    #[test]
    fn the_program_decides_as_the_rules_for_every_call() {
        for capabilities in [Capabilities::default(), Capabilities::none(), Capabilities::all()] {
            let rules = default_rules(capabilities);
            let program = compile(&rules);
            assert!(program.len() < sys::jail::filter::INSTRUCTIONS_MAX);
            for number in (0..1000).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
                for argument in [0, 8, 38, 40, 0x1_0000_0028, 0x1000_0000, 0x0002_0000, 0x11, u64::MAX] {
                    let wanted = expected(&rules, number, argument);
                    assert_eq!(
                        run(&program, ARCHITECTURE, number, argument),
                        wanted,
                        "call {number} {argument:#x}"
                    );
                }
            }
            assert_eq!(run(&program, 0x4000_0003, 0, 0), KILL_PROCESS, "a 32-bit program");
        }
    }

    #[test]
    fn what_looks_into_the_kernel_is_refused_in_systems() {
        let rules = system_rules(Capabilities::chosen_for_system(&[], &[]).expect("known names"));
        for call in [libc::SYS_mount, libc::SYS_unshare, libc::SYS_reboot, libc::SYS_pivot_root] {
            assert_eq!(rules.get(&(call as u32)), Some(&Verdict::Allow), "call {call}");
        }
        for call in [
            libc::SYS_bpf,
            libc::SYS_syslog,
            libc::SYS_perf_event_open,
            libc::SYS_open_by_handle_at,
            libc::SYS_finit_module,
            libc::SYS_kexec_load,
            libc::SYS_swapon,
            libc::SYS_settimeofday,
            libc::SYS_keyctl,
        ] {
            assert_eq!(rules.get(&(call as u32)), None, "call {call}");
        }
    }

    #[test]
    fn what_opens_the_host_is_refused_by_default() {
        let rules = default_rules(Capabilities::default());
        for call in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_userfaultfd,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_pivot_root,
            libc::SYS_open_by_handle_at,
            libc::SYS_acct,
            libc::SYS_quotactl,
            libc::SYS_syslog,
            libc::SYS_kcmp,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_fsopen,
            libc::SYS_move_pages,
            libc::SYS_mbind,
            libc::SYS_io_uring_setup,
            libc::SYS_vhangup,
            libc::SYS_nfsservctl,
            libc::SYS_lookup_dcookie,
            libc::SYS_process_madvise,
            libc::SYS_pidfd_getfd,
        ] {
            assert_eq!(rules.get(&(call as u32)), None, "call {call}");
        }
        assert_eq!(rules[&(libc::SYS_clone3 as u32)], Verdict::Fail(ENOSYS));
    }
}
