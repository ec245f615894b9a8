# Runs holm on another distribution: with the files of ROOT alone, and of this machine its kernel, devices and one directory.
#
#   sh root.sh ROOT DIRECTORY PROGRAM ARGUMENTS...
#
# It runs in a mount namespace of its own, which goes with the last process in it; what holm mounts is seen by nobody else.
set -e
root=$1 directory=$2 program=$3
shift 3
mount --bind "$root" /mnt
cd /mnt
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
mkdir -p "./$directory"
mount --bind "$directory" "./$directory"
touch run/holm
mount --bind "$program" run/holm
for name in proc sys dev; do mount --rbind "/$name" "$name"; done
pivot_root . mnt
# Programs of the new root only, from here on.
exec /bin/busybox chroot . /bin/busybox sh -c 'busybox umount -l /mnt && exec /run/holm "$@"' sh "$@"
