# disk.sh: disk images that SeaBIOS boots (sourced). One MBR partition with ext4, GRUB before it; no loop device, no mount.
#
#   sector 0        GRUB's boot.img and the partition table
#   sectors 1 to …  GRUB's core.img: reads ext4, then /boot/grub/grub.cfg of the first partition
#   sector 2048     the partition, to the end of the disk
#
# Both boot.img and core.img, as grub-mkimage makes them, look for what follows them in the very next sectors, so writing
# them in place is all that an installation needs.

SECTOR=512
PARTITION_START=2048

# grub_unpack DIRECTORY — fetches GRUB's tools and their libraries; nothing is installed on this machine.
GRUB_PACKAGES="grub-common grub-pc-bin libc6 liblzma5 libdevmapper1.02.1 libefiboot1 libefivar1 libfuse3-3 libfreetype6 libselinux1 libudev1 libpcre2-8-0"
grub_unpack() {
  # shellcheck disable=SC2086  # one word per package.
  debian_unpack "$1" $GRUB_PACKAGES
}

# grub_core TOOLS OUTPUT — makes core.img with the modules that a guest's boot needs.
grub_core() {
  local tools=$1 library
  library=$tools/lib/x86_64-linux-gnu:$tools/usr/lib/x86_64-linux-gnu
  "$tools/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" --library-path "$library" "$tools/usr/bin/grub-mkimage" \
    --directory "$tools/usr/lib/grub/i386-pc" --format i386-pc --prefix '(hd0,msdos1)/boot/grub' --output "$2" \
    biosdisk part_msdos ext2 normal linux serial terminal echo test configfile ls reboot halt
}

le32() { printf '%b' "$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)))"; }

# (mke2fs heeds only the last -E: give no other among the options.)
# disk_make DISK SIZE_MIB LABEL ROOT TOOLS [MKE2FS-OPTION…] — a raw sparse disk whose partition holds the tree ROOT.
disk_make() {
  local disk=$1 size_mib=$2 label=$3 root=$4 tools=$5 sectors core_bytes
  shift 5
  sectors=$((size_mib * 2048 - PARTITION_START))
  truncate -s "${size_mib}M" "$disk"
  mke2fs -q -F -t ext4 -L "$label" -d "$root" -E "offset=$((PARTITION_START * SECTOR)),root_owner=0:0" "$@" "$disk" "$((sectors / 8 * 4))k"
  grub_core "$tools" "$disk.core"
  core_bytes=$(stat -c %s "$disk.core")
  [ "$core_bytes" -lt $(((PARTITION_START - 1) * SECTOR)) ] || fail "GRUB's core.img ($core_bytes bytes) does not fit before the partition"
  dd if="$tools/usr/lib/grub/i386-pc/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
  dd if="$disk.core" of="$disk" bs=$SECTOR seek=1 conv=notrunc status=none
  {
    le32 0x6d6c6f68                # disk signature: "holm"
    printf '\0\0'
    printf '\x80\xfe\xff\xff'      # active; the address is in the sectors that follow, not in cylinders
    printf '\x83\xfe\xff\xff'      # Linux
    le32 $PARTITION_START
    le32 $sectors
    head -c 48 /dev/zero
    printf '\x55\xaa'
  } | dd of="$disk" bs=1 seek=440 conv=notrunc status=none
  rm "$disk.core"
}
