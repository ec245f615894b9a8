# Makes a root of its own, whose files nobody else sees, and stays as the first process of all that runs in it.
#
#   firewalls.sh LOWER ROOT PROGRAM NOTE
set -e
lower=$1 root=$2 program=$3 note=$4
mkdir -p "$root"
mount -t tmpfs files "$root"
mkdir "$root/upper" "$root/work" "$root/all"
mount -t overlay -o "lowerdir=$lower,upperdir=$root/upper,workdir=$root/work" all "$root/all"
cd "$root/all"
mount -t proc proc proc
mount -t sysfs sys sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=755 run run
mkdir run/dbus run/lock
touch run/program
mount --bind "$program" run/program
# As the machine counts, whose /proc this still is.
read -r pid rest </proc/self/stat
echo "$pid" >"$note"
# The first process has to bury those whose parents are gone, which the shell does while it waits.
while :; do
  sleep 1000 &
  wait $!
done
