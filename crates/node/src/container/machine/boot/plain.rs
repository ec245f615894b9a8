//! The kernel in an image that unpacks itself (`bzImage`).
//!
//! A machine monitor can start the kernel proper by its PVH entry. That saves the guest from unpacking it, which is a quarter
//! of an emulated boot and a tenth of a second of others. What is compressed in a way that is not known here is left to the
//! guest. Source: the kernel's Documentation/arch/x86/boot.rst and Documentation/virt/pvh in Xen.

use super::elf;
use crate::image::compression::decompress_any;
use std::io::{self, Cursor, Read};

/// Place of the number of sectors before the code; of where in the code the kernel is, and of its length.
const SECTORS_AT: usize = 0x1f1;
const PAYLOAD_AT: usize = 0x248;
const SECTOR_BYTES: usize = 512;
/// Sectors of an image that says 0, as old ones do.
const SECTORS_USUAL: usize = 4;
/// The length that stands behind what was packed.
const LENGTH_BYTES: usize = 4;
/// Largest kernel.
const KERNEL_BYTES_MAX: usize = 256 << 20;
/// Beginnings of packed kernels: gzip has its length in itself, this form of LZ4 is the kernel's own.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const LZ4: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// The note that names the entry for monitors (`XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_NOTE: (&[u8], u32) = (b"Xen\0", 18);

/// The kernel of an image, as an ELF file that a monitor starts by its PVH entry.
///
/// # Errors
/// `InvalidData` for what is no such image, or has no such entry.
pub(super) fn kernel_of(image: &[u8]) -> io::Result<Vec<u8>> {
    let packed = payload(image).ok_or_else(|| broken("no kernel in it"))?;
    let kernel = unpack(packed)?;
    if !elf::has_note(&kernel, PVH_NOTE)? {
        return Err(broken("no entry for monitors"));
    }
    Ok(kernel)
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let sectors = match usize::from(*image.get(SECTORS_AT)?) {
        0 => SECTORS_USUAL,
        sectors => sectors,
    };
    let code = image.get((sectors + 1) * SECTOR_BYTES..)?;
    let start = number(PAYLOAD_AT)?;
    code.get(start..start.checked_add(number(PAYLOAD_AT + 4)?)?)
}

fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let body = match packed.starts_with(&GZIP) {
        true => packed,
        false => &packed[..packed.len().saturating_sub(LENGTH_BYTES)],
    };
    if let Some(blocks) = body.strip_prefix(&LZ4) {
        return unpack_lz4(blocks);
    }
    let mut kernel = Vec::new();
    let plain = decompress_any(Cursor::new(body.to_vec())).map_err(io::Error::other)?;
    plain.take(KERNEL_BYTES_MAX as u64 + 1).read_to_end(&mut kernel)?;
    if kernel.len() > KERNEL_BYTES_MAX {
        return Err(broken("a kernel that is too large"));
    }
    Ok(kernel)
}

/// Blocks with their lengths before them ("legacy frame" of lz4_Frame_format.md).
fn unpack_lz4(mut blocks: &[u8]) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let block = rest.get(..length).ok_or_else(|| broken("a block that is cut off"))?;
        unpack_block(block, &mut output).ok_or_else(|| broken("a block that cannot be unpacked"))?;
        blocks = &rest[length..];
    }
    Ok(output)
}

/// One block (lz4_Block_format.md): literal bytes, then a copy of what is before, again and again.
fn unpack_block(block: &[u8], output: &mut Vec<u8>) -> Option<()> {
    const MATCH_BYTES_MIN: usize = 4;
    let (start, mut rest) = (output.len(), block);
    loop {
        let (token, after) = rest.split_first()?;
        rest = after;
        let literals = length(usize::from(token >> 4), &mut rest)?;
        output.extend_from_slice(rest.get(..literals)?);
        rest = &rest[literals..];
        if rest.is_empty() {
            return Some(());
        }
        let (offset, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        let mut missing = length(usize::from(token & 15), &mut rest)? + MATCH_BYTES_MIN;
        let from = output.len().checked_sub(usize::from(u16::from_le_bytes(*offset)))?;
        if from < start || from == output.len() || output.len() + missing > KERNEL_BYTES_MAX {
            return None;
        }
        // The copy may reach into itself, which repeats it: each round has more to copy from.
        while missing > 0 {
            let part = missing.min(output.len() - from);
            output.extend_from_within(from..from + part);
            missing -= part;
        }
    }
}

/// A length of which the token has the first four bits.
fn length(begun: usize, rest: &mut &[u8]) -> Option<usize> {
    let mut length = begun;
    if begun < 15 {
        return Some(length);
    }
    loop {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        length += usize::from(*byte);
        if *byte != 255 {
            break;
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with one segment, of notes.
    fn kernel(name: &[u8; 4], kind: u32) -> Vec<u8> {
        let note =
            [&4_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), &kind.to_le_bytes(), name, &[0; 4]].concat();
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x20] = 64;
        file[0x36] = 56;
        file[0x38] = 1;
        file[64] = 4;
        file[64 + 8] = 120;
        file[64 + 32] = note.len() as u8;
        file.extend(note);
        file.extend([7; 3000]);
        file
    }

    /// An image with this as what is packed.
    fn image(packed: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[SECTORS_AT] = 1;
        image[PAYLOAD_AT..PAYLOAD_AT + 4].copy_from_slice(&16_u32.to_le_bytes());
        image[PAYLOAD_AT + 4..PAYLOAD_AT + 8].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        image.extend([0; 16]);
        image.extend(packed);
        image.extend([0xcc; 100]);
        image
    }

    /// The form of LZ4 that has literal bytes alone, with a run at its end.
    fn lz4(plain: &[u8], run: u8, times: usize) -> Vec<u8> {
        let mut block = vec![0xff];
        let put = |block: &mut Vec<u8>, mut rest: usize| {
            while rest >= 255 {
                block.push(255);
                rest -= 255;
            }
            block.push(rest as u8);
        };
        put(&mut block, plain.len() + 1 - 15);
        block.extend(plain);
        block.push(run);
        block.extend([1, 0]);
        put(&mut block, times - 4 - 15);
        block.extend([0x10, run]);
        [&LZ4[..], &(block.len() as u32).to_le_bytes(), &block].concat()
    }

    #[test]
    fn the_kernel_comes_out_however_it_was_packed() {
        let plain = kernel(b"Xen\0", 18);
        let zstd = zstd::encode_all(plain.as_slice(), 3).expect("packed");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &plain).expect("packed");
        let gzip = gzip.finish().expect("packed");
        let length = (plain.len() as u32).to_le_bytes();
        for packed in [gzip, [&zstd[..], &length].concat()] {
            assert_eq!(kernel_of(&image(&packed)).expect("a kernel"), plain);
        }
        let packed = [&lz4(&plain, 7, 500)[..], &length].concat();
        let out = kernel_of(&image(&packed)).expect("a kernel");
        assert_eq!(out, [&plain[..], &[7; 502]].concat());
    }

    #[test]
    fn what_has_no_entry_and_what_is_cut_is_refused() {
        for (name, kind) in [(b"GNU\0", 18), (b"Xen\0", 17)] {
            let gzip = zstd::encode_all(kernel(name, kind).as_slice(), 3).expect("packed");
            assert!(kernel_of(&image(&[&gzip[..], &[0; 4]].concat())).is_err());
        }
        let whole = image(&[&lz4(&kernel(b"Xen\0", 18), 7, 500)[..], &[0; 4]].concat());
        assert!(kernel_of(&whole).is_ok());
        for length in 0..whole.len() - 100 {
            assert!(kernel_of(&whole[..length]).is_err(), "cut to {length}");
        }
        // Whatever is in the block, the answer is a kernel or an error.
        for at in 1040 + 8..whole.len() - 104 {
            let mut bad = whole.clone();
            bad[at] ^= 0x55;
            let _ = kernel_of(&bad);
        }
    }
}
