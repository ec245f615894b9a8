//! Memory of this process that nobody uses any more.

use std::ffi::c_void;

/// Gives memory that was freed back to the system. The allocator keeps it for later by itself, which after a start or a burst
/// is most of what a quiet process has. Takes about a millisecond; others wait for memory meanwhile. Source: malloc_trim(3).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time by any thread, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets the allocator split its heap into at most so many parts (arenas). It makes up to eight for each processor, so that
/// threads do not wait for each other, and what a burst leaves free in one of them is of no use to the others. To be called
/// before there is a second thread. Source: mallopt(3).
pub fn limit_arenas(count: u8) {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number, and no other thread is there to read it.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, i32::from(count.max(1)));
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}

/// Lets go of the pages of the program's own file. What is used again is mapped again, a little at a time and without a look at
/// the disk: the pages stay in the kernel's cache of files, where they are the first to go when it needs the room. To be called
/// once a start is over, which maps much that nothing needs afterwards. Source: madvise(2).
pub fn let_go_of_program() {
    for (start, length) in constant_parts() {
        // SAFETY: nothing was ever written to these pages, nor can be: the file has what they hold.
        unsafe {
            // The first only says what goes first, and a kernel without it loses nothing.
            libc::madvise(start as *mut c_void, length, libc::MADV_COLD);
            libc::madvise(start as *mut c_void, length, libc::MADV_DONTNEED);
        }
    }
}

/// Whole pages of the program's segments that were never writable, by address and length. Those that were written while its
/// addresses were settled, and made read-only then, belong to a writable segment: elf(5).
fn constant_parts() -> Vec<(usize, usize)> {
    let mut parts: Vec<(usize, usize)> = vec![];
    // SAFETY: it calls `note_constant` with what that expects, before it returns.
    unsafe {
        libc::dl_iterate_phdr(Some(note_constant), (&raw mut parts).cast());
    }
    parts
}

/// Notes the constant parts of the first object that is told of, which is the program itself: dl_iterate_phdr(3).
unsafe extern "C" fn note_constant(
    object: *mut libc::dl_phdr_info,
    _: libc::size_t,
    parts: *mut c_void,
) -> libc::c_int {
    // SAFETY: the caller gives an object that lives, with its headers, and the list that `constant_parts` handed over.
    let (base, headers, parts) = unsafe {
        let object = &*object;
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum));
        (object.dlpi_addr as usize, headers, &mut *parts.cast::<Vec<(usize, usize)>>())
    };
    // SAFETY: it takes a number and gives one.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    for header in headers.iter().filter(|it| it.p_type == libc::PT_LOAD && it.p_flags & libc::PF_W == 0) {
        let start = base + header.p_vaddr as usize;
        let (first, end) = (start.next_multiple_of(page), start + header.p_memsz as usize);
        let length = end.saturating_sub(first) / page * page;
        if length > 0 {
            parts.push((first, length));
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its addresses are settled when the program is loaded, so it is in pages that only look like the file's.
    static SETTLED: [&(dyn Fn() -> usize + Sync); 2] = [&|| constant_parts().len(), &|| 2];

    /// What of these parts is mapped, by proc_pid_smaps(5).
    fn resident_kib(parts: &[(usize, usize)]) -> usize {
        let (mut is_part, mut sum_kib) = (false, 0);
        for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some(Ok(start)) = range.map(|(start, _)| usize::from_str_radix(start, 16)) {
                // The first page of a mapping may be no whole one of the part.
                is_part = parts.iter().any(|(part, length)| (part - 4096..part + length).contains(&start));
            } else if let Some(kib) = line.strip_prefix("Rss:").filter(|_| is_part) {
                sum_kib += kib.trim().trim_end_matches(" kB").parse::<usize>().unwrap();
            }
        }
        sum_kib
    }

    #[test]
    fn what_was_let_go_of_comes_back_as_it_was() {
        let parts = constant_parts();
        let here = what_was_let_go_of_comes_back_as_it_was as *const () as usize;
        assert!(parts.iter().any(|(start, length)| (*start..start + length).contains(&here)), "{parts:x?}");
        let settled = (&raw const SETTLED) as usize;
        assert!(!parts.iter().any(|(start, length)| (*start..start + length).contains(&settled)));
        // All of it, so that there is something to be let go of.
        let sum = |parts: &[(usize, usize)]| {
            let bytes = parts.iter().flat_map(|(start, length)| {
                // SAFETY: these are pages of the program, which can be read and do not change.
                unsafe { std::slice::from_raw_parts(*start as *const u8, *length) }
            });
            bytes.fold(0u64, |sum, byte| sum.rotate_left(1) ^ u64::from(*byte))
        };
        let (before, resident) = (sum(&parts), resident_kib(&parts));
        let_go_of_program();
        let left = resident_kib(&parts);
        assert!(left < resident / 4 * 3, "{resident} KiB before, {left} after");
        assert_eq!((sum(&parts), SETTLED[0](), SETTLED[1]()), (before, parts.len(), 2));
    }
}
