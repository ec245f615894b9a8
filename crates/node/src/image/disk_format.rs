//! What kind of disk a file is, told by its bytes alone, and what of it is refused before any program opens it.
//!
//! A disk image may name other files that it stands on. Opened by a daemon, such a name reads the host's secrets into
//! the guest: so every image that names another file is refused here, by our own few lines, and once more by what
//! `qemu-img` reports. Names and suffixes of files say nothing. Sources: QEMU's docs/interop/qcow2.txt, VMware's
//! Virtual Disk Format 5.0, MS-VHDX, and the magic numbers of the others in QEMU's block drivers.

use model::image_format::FileFormat;

/// Bytes of a file's start that [`detect`] wants.
pub const HEAD_BYTES: usize = 64 << 10;
/// Largest virtual disk.
pub const VIRTUAL_BYTES_MAX: u64 = 64 << 40;
const SECTOR_BYTES: u64 = 512;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DetectedFormat {
    /// Plain bytes.
    Raw,
    /// A CD or DVD (ISO 9660): plain bytes that should not be written.
    Iso,
    /// QEMU copy-on-write 2 or 3.
    Qcow2,
    /// VMware.
    Vmdk,
    /// VirtualBox.
    Vdi,
    /// Hyper-V.
    Vhdx,
    /// Older Hyper-V and Azure.
    Vpc,
    /// Parallels.
    Parallels,
}

impl DetectedFormat {
    /// As senders call it.
    pub fn file_format(self) -> FileFormat {
        match self {
            Self::Raw => FileFormat::Raw,
            Self::Iso => FileFormat::Iso,
            Self::Qcow2 => FileFormat::Qcow2,
            Self::Vmdk => FileFormat::Vmdk,
            Self::Vdi => FileFormat::Vdi,
            Self::Vhdx => FileFormat::Vhdx,
            Self::Vpc => FileFormat::Vhd,
            Self::Parallels => FileFormat::Ploop,
        }
    }

    /// Name of QEMU's driver.
    pub fn qemu_name(self) -> &'static str {
        match self {
            Self::Raw | Self::Iso => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhdx => "vhdx",
            Self::Vpc => "vpc",
            Self::Parallels => "parallels",
        }
    }
}

/// Why a file is no disk that holm takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// It names another file that it stands on or keeps its data in.
    #[error("the {format} image refers to another file ({what})")]
    External {
        /// Format.
        format: &'static str,
        /// Backing file, data file, extent…
        what: &'static str,
    },
    /// Encrypted.
    #[error("the {0} image is encrypted")]
    Encrypted(&'static str),
    /// Marked as broken by the program that wrote it.
    #[error("the {0} image is marked as corrupt")]
    Corrupt(&'static str),
    /// A newer or older form than is known.
    #[error("the {format} image uses {what}, which is not supported")]
    Unsupported {
        /// Format.
        format: &'static str,
        /// What.
        what: String,
    },
    /// Its header makes no sense.
    #[error("the header of the {format} image is damaged: {what}")]
    Damaged {
        /// Format.
        format: &'static str,
        /// What.
        what: &'static str,
    },
    /// Compressed or archived.
    #[error("the file is {what}, not a disk")]
    Wrapped {
        /// What it is.
        what: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// Larger than the limit.
    #[error("the disk has {virtual_bytes} bytes, at most {virtual_bytes_max} are possible")]
    TooLarge {
        /// Its size.
        virtual_bytes: u64,
        /// The limit.
        virtual_bytes_max: u64,
    },
}

impl FormatError {
    /// What to do about it, for people.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::External { .. } => "make it stand alone first: qemu-img convert -O qcow2 IMAGE NEW",
            Self::Encrypted(_) => "decrypt it first: qemu-img convert with its secret",
            Self::Corrupt(_) | Self::Damaged { .. } => "check it: qemu-img check IMAGE; or fetch it again",
            Self::Wrapped { hint, .. } => hint,
            _ => "convert it first: qemu-img convert -O qcow2 IMAGE NEW",
        }
    }
}

/// Tells the format from the file's first [`HEAD_BYTES`] (or fewer, if it is shorter) and its last sector, and
/// refuses what refers to other files. Any bytes may be given: this is the door for fuzzing, too.
pub fn detect(head: &[u8], tail: &[u8]) -> Result<DetectedFormat, FormatError> {
    if head.is_empty() {
        return Err(FormatError::Empty);
    }
    if head.starts_with(b"QFI\xfb") {
        return check_qcow2(head).map(|()| DetectedFormat::Qcow2);
    }
    if head.starts_with(b"KDMV") || head.starts_with(b"COWD") || starts_with_descriptor(head) {
        return check_vmdk(head).map(|()| DetectedFormat::Vmdk);
    }
    if field_u32_le(head, 0x40) == Some(0xbeda_107f) {
        return Ok(DetectedFormat::Vdi);
    }
    if head.starts_with(b"vhdxfile") {
        return Ok(DetectedFormat::Vhdx);
    }
    if head.starts_with(b"conectix") || tail.starts_with(b"conectix") {
        let footer = if head.starts_with(b"conectix") { head } else { tail };
        return check_vpc(footer).map(|()| DetectedFormat::Vpc);
    }
    if head.starts_with(b"WithoutFreeSpace") || head.starts_with(b"WithouFreSpacExt") {
        return Ok(DetectedFormat::Parallels);
    }
    if let Some(error) = wrapped(head) {
        return Err(error);
    }
    if head.get(0x8001..0x8006) == Some(b"CD001") {
        return Ok(DetectedFormat::Iso);
    }
    Ok(DetectedFormat::Raw)
}

fn wrapped(head: &[u8]) -> Option<FormatError> {
    let (what, hint) = match head {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ("compressed by xz", "unpack it first: unxz IMAGE"),
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', ..] => {
            ("compressed by bzip2", "unpack it first: bunzip2 IMAGE")
        }
        [b'P', b'K', 3, 4, ..] => ("a zip archive", "unpack it first: unzip IMAGE"),
        [b'7', b'z', 0xbc, 0xaf, ..] => ("a 7-zip archive", "unpack it first: 7z x IMAGE"),
        _ if head.get(257..262) == Some(b"ustar") => (
            "a tar archive",
            "an appliance (OVA) has an .ovf file and a disk in it; else unpack the disk first",
        ),
        [b'Q', b'E', b'D', 0, ..] => {
            ("in the format qed", "convert it first: qemu-img convert -O qcow2 IMAGE NEW")
        }
        _ => return None,
    };
    Some(FormatError::Wrapped { what, hint })
}

fn field_u32_be(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_be_bytes)
}

fn field_u64_be(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_be_bytes)
}

fn field_u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn field_u64_le(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

/// Version, backing file, encryption, features and header extensions (qcow2.txt, "Header").
fn check_qcow2(head: &[u8]) -> Result<(), FormatError> {
    const DAMAGED: FormatError = FormatError::Damaged { format: "qcow2", what: "it is too short" };
    let version = field_u32_be(head, 4).ok_or(DAMAGED)?;
    if !matches!(version, 2 | 3) {
        let what = format!("version {version}");
        return Err(FormatError::Unsupported { format: "qcow2", what });
    }
    if field_u64_be(head, 8).ok_or(DAMAGED)? != 0 || field_u32_be(head, 16).ok_or(DAMAGED)? != 0 {
        return Err(FormatError::External { format: "qcow2", what: "a backing file" });
    }
    check_virtual_size(field_u64_be(head, 24).ok_or(DAMAGED)?)?;
    if field_u32_be(head, 32).ok_or(DAMAGED)? != 0 {
        return Err(FormatError::Encrypted("qcow2"));
    }
    let mut extensions = 72;
    if version == 3 {
        let features = field_u64_be(head, 72).ok_or(DAMAGED)?;
        if features & 2 != 0 {
            return Err(FormatError::Corrupt("qcow2"));
        }
        if features & 4 != 0 {
            return Err(FormatError::External { format: "qcow2", what: "a data file" });
        }
        // Dirty bit, compression type and extended L2 entries are known.
        if features & !0b11011 != 0 {
            let what = format!("unknown features {features:#x}");
            return Err(FormatError::Unsupported { format: "qcow2", what });
        }
        extensions = field_u32_be(head, 100).ok_or(DAMAGED)? as usize;
    }
    check_qcow2_extensions(head, extensions)
}

fn check_qcow2_extensions(head: &[u8], start: usize) -> Result<(), FormatError> {
    let mut at = start;
    // The extensions lie in the first cluster; what lies past the bytes we have is not one we need to fear, because
    // the feature bits speak for it.
    while let (Some(kind), Some(length)) = (field_u32_be(head, at), field_u32_be(head, at.saturating_add(4)))
    {
        match kind {
            0 => break,
            0x4441_5441 => {
                return Err(FormatError::External { format: "qcow2", what: "a data file" });
            }
            0x0537_be77 => return Err(FormatError::Encrypted("qcow2")),
            _ => {}
        }
        at = at.saturating_add(8).saturating_add((length as usize).saturating_add(7) & !7);
    }
    Ok(())
}

fn check_virtual_size(virtual_bytes: u64) -> Result<(), FormatError> {
    if virtual_bytes > VIRTUAL_BYTES_MAX {
        return Err(FormatError::TooLarge { virtual_bytes, virtual_bytes_max: VIRTUAL_BYTES_MAX });
    }
    Ok(())
}

fn starts_with_descriptor(head: &[u8]) -> bool {
    let text = head.trim_ascii_start();
    text.get(..21).is_some_and(|start| start.eq_ignore_ascii_case(b"# Disk DescriptorFile"))
}

/// Only disks in one sparse file, without a parent: the descriptor inside may name neither another file nor device.
fn check_vmdk(head: &[u8]) -> Result<(), FormatError> {
    if !head.starts_with(b"KDMV") {
        return Err(FormatError::External { format: "vmdk", what: "the extents that its descriptor lists" });
    }
    let damaged = |what| FormatError::Damaged { format: "vmdk", what };
    let capacity = field_u64_le(head, 12).ok_or(damaged("it is too short"))?;
    let offset = field_u64_le(head, 28).ok_or(damaged("it is too short"))?.saturating_mul(SECTOR_BYTES);
    let length = field_u64_le(head, 36).ok_or(damaged("it is too short"))?.saturating_mul(SECTOR_BYTES);
    // Without a size of its own, the header only carries a descriptor of other files.
    if capacity == 0 {
        return Err(FormatError::External { format: "vmdk", what: "the extents that its descriptor lists" });
    }
    check_virtual_size(capacity.saturating_mul(SECTOR_BYTES))?;
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
    let descriptor = head.get(start..end).filter(|text| !text.is_empty());
    let descriptor = descriptor.ok_or(damaged("its descriptor is not at its start"))?;
    check_descriptor(&String::from_utf8_lossy(descriptor))
}

fn check_descriptor(text: &str) -> Result<(), FormatError> {
    let mut kind = None;
    let mut extents = 0;
    for line in text.split(['\n', '\r', '\0']).map(str::trim) {
        let lower = line.to_ascii_lowercase();
        if let Some((key, value)) = lower.split_once('=') {
            match (key.trim(), value.trim().trim_matches('"')) {
                ("createtype", value) => kind = Some(value.to_string()),
                ("parentfilenamehint", _) => {
                    return Err(FormatError::External { format: "vmdk", what: "a parent" });
                }
                ("parentcid", value) if value != "ffffffff" => {
                    return Err(FormatError::External { format: "vmdk", what: "a parent" });
                }
                _ => {}
            }
        }
        if lower.starts_with("rw ") || lower.starts_with("rdonly ") || lower.starts_with("noaccess ") {
            extents += 1;
        }
    }
    match kind.as_deref() {
        Some("monolithicsparse" | "streamoptimized") if extents <= 1 => Ok(()),
        Some("monolithicsparse" | "streamoptimized") => {
            Err(FormatError::External { format: "vmdk", what: "several extents" })
        }
        Some(other) => Err(FormatError::Unsupported {
            format: "vmdk",
            what: format!("the type {}", other.escape_default()),
        }),
        None => Err(FormatError::Damaged { format: "vmdk", what: "its descriptor has no type" }),
    }
}

/// Disk type 4 is a differencing disk with a parent (Virtual Hard Disk Image Format Specification).
fn check_vpc(footer: &[u8]) -> Result<(), FormatError> {
    match field_u32_be(footer, 60) {
        Some(2 | 3) => check_virtual_size(field_u64_be(footer, 48).unwrap_or(u64::MAX)),
        Some(4) => Err(FormatError::External { format: "vpc", what: "a parent" }),
        _ => Err(FormatError::Damaged { format: "vpc", what: "its type is unknown" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn qcow2(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut head = vec![0; 512];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[7] = 3;
        head[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        head[100..104].copy_from_slice(&104u32.to_be_bytes());
        edit(&mut head);
        head
    }

    fn vmdk(capacity: u64, descriptor: &str) -> Vec<u8> {
        let mut head = vec![0; 2048];
        head[..4].copy_from_slice(b"KDMV");
        head[12..20].copy_from_slice(&capacity.to_le_bytes());
        head[28..36].copy_from_slice(&1u64.to_le_bytes());
        head[36..44].copy_from_slice(&2u64.to_le_bytes());
        head[512..512 + descriptor.len()].copy_from_slice(descriptor.as_bytes());
        head
    }

    const ALONE: &str = "parentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 100 SPARSE \"x.vmdk\"\n";

    #[test]
    fn formats_are_told_apart() {
        let mut vdi = vec![0; 512];
        vdi[0x40..0x44].copy_from_slice(&0xbeda_107fu32.to_le_bytes());
        let mut iso = vec![0; HEAD_BYTES];
        iso[0x8001..0x8006].copy_from_slice(b"CD001");
        let mut footer = vec![0; 512];
        footer[..8].copy_from_slice(b"conectix");
        footer[60..64].copy_from_slice(&2u32.to_be_bytes());
        for (head, tail, format) in [
            (vec![0; 512], vec![], DetectedFormat::Raw),
            (b"\x7fELF".to_vec(), vec![], DetectedFormat::Raw),
            (qcow2(|_| {}), vec![], DetectedFormat::Qcow2),
            (qcow2(|head| head[7] = 2), vec![], DetectedFormat::Qcow2),
            (vmdk(100, ALONE), vec![], DetectedFormat::Vmdk),
            (vdi, vec![], DetectedFormat::Vdi),
            (b"vhdxfile".to_vec(), vec![], DetectedFormat::Vhdx),
            (vec![0; 512], footer.clone(), DetectedFormat::Vpc),
            (footer, vec![], DetectedFormat::Vpc),
            (b"WithouFreSpacExt".to_vec(), vec![], DetectedFormat::Parallels),
            (iso, vec![], DetectedFormat::Iso),
        ] {
            assert_eq!(detect(&head, &tail), Ok(format));
        }
    }

    #[test]
    fn what_refers_to_other_files_is_refused() {
        let mut differencing = vec![0; 512];
        differencing[..8].copy_from_slice(b"conectix");
        differencing[60..64].copy_from_slice(&4u32.to_be_bytes());
        let cases = [
            (qcow2(|head| head[15] = 200), "a backing file"),
            (qcow2(|head| head[19] = 11), "a backing file"),
            (qcow2(|head| head[79] = 4), "a data file"),
            (qcow2(|head| head[104..108].copy_from_slice(&0x4441_5441u32.to_be_bytes())), "a data file"),
            (qcow2(|head| head[35] = 2), "encrypted"),
            (qcow2(|head| head[79] = 2), "corrupt"),
            (qcow2(|head| head[72] = 1), "unknown features"),
            (qcow2(|head| head[7] = 1), "version 1"),
            (qcow2(|head| head[24] = 0xff), "at most"),
            (vmdk(0, ALONE), "extents"),
            (b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0".to_vec(), "extents"),
            (vmdk(100, "createType=\"monolithicFlat\"\nRW 1 FLAT \"/etc/shadow\" 0"), "monolithicflat"),
            (vmdk(100, &ALONE.replace("ffffffff", "12345678")), "a parent"),
            (vmdk(100, &format!("{ALONE}parentFileNameHint=\"/etc/shadow\"")), "a parent"),
            (vmdk(100, &format!("{ALONE}RW 1 FLAT \"/etc/shadow\" 0\n")), "several extents"),
            (differencing, "a parent"),
            (vec![0xfd, b'7', b'z', b'X', b'Z', 0, 0], "compressed by xz"),
            (vec![], "empty"),
        ];
        for (head, message) in cases {
            let error = detect(&head, &[]).expect_err(message);
            assert!(error.to_string().contains(message), "{message}: {error}");
            assert!(!error.hint().is_empty());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(mut head in proptest::collection::vec(any::<u8>(), 0..1024), kind in 0usize..5) {
            let magic: &[u8] = [b"QFI\xfb\0\0\0\x03".as_slice(), b"KDMV", b"conectix", b"vhdxfile", b""][kind];
            if head.len() >= magic.len() {
                head[..magic.len()].copy_from_slice(magic);
            }
            let _ = detect(&head, &head);
        }
    }
}
