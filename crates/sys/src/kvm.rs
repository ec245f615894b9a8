//! How fast /dev/kvm truly runs guest code, measured by a guest of four instructions.
//!
//! A host may offer /dev/kvm and yet emulate a guest's instructions one at a time (KVM nested in a machine without hardware
//! help): it opens, makes vCPUs and runs small guests, and a real kernel crawls. Asking for features cannot tell that
//! apart, so a real-mode loop is timed. Must never leave a virtual machine behind.
//!
//! Sources: Documentation/virt/kvm/api.rst of the kernel, Intel SDM volume 2 for the encodings.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result, check};

/// The API version that every kernel since 2.6.22 has.
const API_VERSION: i64 = 12;
const GET_API_VERSION: libc::c_ulong = 0xae00;
const CREATE_VM: libc::c_ulong = 0xae01;
const GET_VCPU_MMAP_SIZE: libc::c_ulong = 0xae04;
const CREATE_VCPU: libc::c_ulong = 0xae41;
const SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_ae46;
const SET_TSS_ADDR: libc::c_ulong = 0xae47;
const RUN: libc::c_ulong = 0xae80;
const GET_SREGS: libc::c_ulong = 0x8138_ae83;
const SET_REGS: libc::c_ulong = 0x4090_ae82;
const SET_SREGS: libc::c_ulong = 0x4138_ae84;

/// `kvm_run.exit_reason` after the guest's `hlt`.
const EXIT_HLT: u32 = 5;
/// Where `exit_reason` stands in `kvm_run`.
const EXIT_REASON_OFFSET: usize = 8;
const PAGE_BYTES: usize = 4096;
/// Unused guest-physical pages that older Intel CPUs need for real mode.
const TSS_ADDRESS: libc::c_ulong = 0xfffb_d000;
/// Where the guest's code stands in its memory of one page.
const CODE_ADDRESS: u64 = 0x100;
/// `again: dec ecx; jnz again; hlt` in 16-bit mode.
const CODE: [u8; 5] = [0x66, 0x49, 0x75, 0xfc, 0xf4];
/// The first run is short, so that the slowest host answers within milliseconds; each run doubles.
const ITERATIONS_FIRST: u64 = 2_000;
/// The counter has 32 bits.
const ITERATIONS_MAX: u64 = u32::MAX as u64;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Loop iterations (two instructions each) that the guest made.
    pub iterations: u64,
    /// Time that they took.
    pub elapsed: Duration,
}

impl Speed {
    /// Iterations in a second.
    pub fn per_second(&self) -> f64 {
        self.iterations as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Runs the loop on `device` (normally `/dev/kvm`) for about `duration` and tells the speed of the last and longest run.
/// Blocks; a host on which even two thousand iterations never end would block forever, so call it from a thread that
/// may be given up.
pub fn measure(device: &Path, duration: Duration) -> Result<Speed> {
    let mut guest = Guest::boot(device)?;
    let begin = Instant::now();
    let mut iterations = ITERATIONS_FIRST;
    loop {
        let elapsed = guest.count_down(iterations)?;
        if begin.elapsed() >= duration || iterations >= ITERATIONS_MAX {
            return Ok(Speed { iterations, elapsed });
        }
        iterations = (iterations * 2).min(ITERATIONS_MAX);
    }
}

/// General registers, `struct kvm_regs`.
#[repr(C)]
#[derive(Default)]
struct Registers {
    rax_to_rdx: [u64; 4],
    rsi_to_rbp: [u64; 4],
    r8_to_r15: [u64; 8],
    rip: u64,
    rflags: u64,
}

/// `struct kvm_segment`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Segment {
    base: u64,
    limit: u32,
    selector: u16,
    attributes: [u8; 10],
}

/// `struct kvm_sregs`; only the code segment is ours to change.
#[repr(C)]
#[derive(Default)]
struct SpecialRegisters {
    cs: Segment,
    other_segments: [Segment; 7],
    tables: [u64; 4],
    control: [u64; 7],
    interrupts: [u64; 4],
}

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_physical_address: u64,
    memory_bytes: u64,
    host_address: u64,
}

const _: () = assert!(size_of::<Registers>() == 144 && size_of::<SpecialRegisters>() == 312);
const _: () = assert!(size_of::<MemoryRegion>() == 32);

/// A machine of one vCPU and one page.
struct Guest {
    vcpu: OwnedFd,
    run: Mapping,
    // Dropped after the vCPU, which uses them.
    _vm: OwnedFd,
    _memory: Mapping,
}

impl Guest {
    fn boot(device: &Path) -> Result<Guest> {
        let kvm = OpenOptions::new().read(true).write(true).open(device).context("open", device.display())?;
        if ioctl(kvm.as_raw_fd(), GET_API_VERSION, 0, "ask version of")? != API_VERSION {
            return Err(Error::invalid("use", device.display(), "an unknown version of the KVM interface"));
        }
        let vm = create(kvm.as_raw_fd(), CREATE_VM, "create a virtual machine on")?;
        // Not needed (and refused) on some hosts; where it is needed and refused, the run fails and says so.
        let _ = ioctl(vm.as_raw_fd(), SET_TSS_ADDR, TSS_ADDRESS, "place the task state of");
        let memory = Mapping::anonymous(PAGE_BYTES)?;
        memory.write(CODE_ADDRESS as usize, &CODE);
        let region = MemoryRegion {
            slot: 0,
            flags: 0,
            guest_physical_address: 0,
            memory_bytes: PAGE_BYTES as u64,
            host_address: memory.address.as_ptr() as u64,
        };
        ioctl(vm.as_raw_fd(), SET_USER_MEMORY_REGION, &raw const region as libc::c_ulong, "give memory to")?;
        let vcpu = create(vm.as_raw_fd(), CREATE_VCPU, "create a vCPU on")?;
        let run_bytes = ioctl(kvm.as_raw_fd(), GET_VCPU_MMAP_SIZE, 0, "ask size of")? as usize;
        let run = Mapping::shared(run_bytes.max(PAGE_BYTES), vcpu.as_raw_fd())?;
        let guest = Guest { vcpu, run, _vm: vm, _memory: memory };
        guest.point_code_segment_at_zero()?;
        Ok(guest)
    }

    fn point_code_segment_at_zero(&self) -> Result<()> {
        let mut registers = SpecialRegisters::default();
        let vcpu = self.vcpu.as_raw_fd();
        ioctl(vcpu, GET_SREGS, &raw mut registers as libc::c_ulong, "read registers of")?;
        registers.cs.base = 0;
        registers.cs.selector = 0;
        ioctl(vcpu, SET_SREGS, &raw const registers as libc::c_ulong, "write registers of").map(drop)
    }

    /// Lets the guest count from `iterations` to zero and tells the time it took.
    fn count_down(&mut self, iterations: u64) -> Result<Duration> {
        let vcpu = self.vcpu.as_raw_fd();
        // The third of the first four is rcx; bit 1 of the flags is always set.
        let registers = Registers {
            rax_to_rdx: [0, 0, iterations, 0],
            rip: CODE_ADDRESS,
            rflags: 2,
            ..Registers::default()
        };
        ioctl(vcpu, SET_REGS, &raw const registers as libc::c_ulong, "write registers of")?;
        let begin = Instant::now();
        loop {
            match ioctl(vcpu, RUN, 0, "run") {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            break;
        }
        let elapsed = begin.elapsed();
        match self.run.read_u32(EXIT_REASON_OFFSET) {
            EXIT_HLT => Ok(elapsed),
            reason => {
                Err(Error::invalid("run", "vCPU", &format!("it stopped for reason {reason} instead of hlt")))
            }
        }
    }
}

fn ioctl(
    descriptor: RawFd,
    request: libc::c_ulong,
    argument: libc::c_ulong,
    operation: &'static str,
) -> Result<i64> {
    // SAFETY: every request used here takes either a number or a pointer to one of the structures above, whose size is
    // checked at compile time and which lives in the caller for as long as the call.
    let result = unsafe { libc::ioctl(descriptor, request as _, argument) };
    check(operation, "/dev/kvm", result.into())
}

fn create(descriptor: RawFd, request: libc::c_ulong, operation: &'static str) -> Result<OwnedFd> {
    let number = ioctl(descriptor, request, 0, operation)?;
    // SAFETY: the kernel has just returned this descriptor, so it is open and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number as RawFd) })
}

/// Mapped memory, unmapped when dropped.
struct Mapping {
    address: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn anonymous(length: usize) -> Result<Mapping> {
        Mapping::new(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    fn shared(length: usize, descriptor: RawFd) -> Result<Mapping> {
        Mapping::new(length, libc::MAP_SHARED, descriptor)
    }

    fn new(length: usize, flags: i32, descriptor: RawFd) -> Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, descriptor, 0) };
        match NonNull::new(address.cast::<u8>()) {
            Some(address) if address.as_ptr().cast::<libc::c_void>() != libc::MAP_FAILED => {
                Ok(Mapping { address, length })
            }
            _ => Err(Error::last("map", "memory of a virtual machine")),
        }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length, "inside the mapping");
        // SAFETY: the range is inside the mapping, as just checked, and no reference into it exists.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address.as_ptr().add(offset), bytes.len())
        };
    }

    fn read_u32(&self, offset: usize) -> u32 {
        assert!(offset + 4 <= self.length && offset.is_multiple_of(4), "inside the mapping and aligned");
        // SAFETY: the word is inside the mapping and aligned, as just checked; volatile because the kernel writes it.
        unsafe { self.address.as_ptr().add(offset).cast::<u32>().read_volatile() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: address and length are those of a mapping that we made and nobody else knows.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_of_this_host_is_measured_or_the_reason_is_told() {
        let device = Path::new("/dev/kvm");
        match measure(device, Duration::from_millis(100)) {
            Ok(speed) => {
                assert!(speed.per_second() > 1_000.0, "{speed:?}");
                assert!(speed.iterations >= ITERATIONS_FIRST, "{speed:?}");
            }
            Err(error) => assert!(!device.exists() || error.errno().is_some(), "{error}: {}", error.source),
        }
    }

    #[test]
    fn a_host_without_the_device_says_so() {
        let error =
            measure(Path::new("/nonexistent/kvm"), Duration::from_millis(1)).expect_err("there is none");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
