# Makes a root of its own for the engines that holm is measured beside, and stays as the first process of all that runs in it,
# until its input ends.
#
#   peers.sh LOWER DIRECTORY GROUP
#
# What they write lies in DIRECTORY: at the same path inside if it is in DIRECTORY/data, whose file `first` then says that it is ready.
# GROUP is the control group that theirs are below.
set -e
lower=$1 directory=$2 group=$3
# As the machine counts, whose /proc this still is.
read -r pid rest </proc/self/stat
root=$directory/root
mkdir -p "$root" "$directory"/{data,files,work}
mount -t overlay -o "lowerdir=$lower,upperdir=$directory/files,workdir=$directory/work" peers "$root"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mkdir -p "$root$directory/data"
mount --bind "$directory/data" "$root$directory/data"
for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do
  [ -e "$tree/cgroup.procs" ] || continue
  mkdir -p "$tree/$group"
  # In version 1 a group begins with neither.
  for name in cpuset.cpus cpuset.mems; do
    [ ! -e "$tree/cpuset.cpu_exclusive" ] || cat "$tree/$name" >"$tree/$group/$name"
  done
  echo 0 >"$tree/$group/cgroup.procs"
done

mkdir -p "$root/etc/containers"
cat >"$root/etc/containers/containers.conf" <<CONFIG
[containers]
# Such as a host without CAP_SYS_RESOURCE can give; podman's own it cannot.
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
CONFIG
cat >"$root/etc/containers/storage.conf" <<CONFIG
[storage]
driver = "overlay"
graphroot = "$directory/data/podman"
runroot = "/run/podman"
CONFIG
cat >"$root/etc/containers/registries.conf" <<CONFIG
[[registry]]
location = "127.0.0.1:5000"
insecure = true
CONFIG

exec unshare --cgroup bash -ec '
  root=$1 pid=$2 note=$3
  cd "$root"
  mount -t proc proc proc
  mount -t sysfs sys sys
  mount --rbind /dev dev
  if [ -e /sys/fs/cgroup/cgroup.procs ]; then
    mount -t cgroup2 cgroup sys/fs/cgroup
    # A group that has others below it has no processes.
    mkdir sys/fs/cgroup/engines
    echo 0 >sys/fs/cgroup/engines/cgroup.procs
    sed "s/ / +/g; s/^/+/" sys/fs/cgroup/cgroup.controllers >sys/fs/cgroup/cgroup.subtree_control
  else
    # Podman and crun refuse hosts with control groups of both versions: they see those of version 1 alone.
    mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
    sed -n "s|^[^-]* /sys/fs/cgroup/\([^ ]*\) .* - cgroup [^ ]* rw,\(.*\)$|\1 \2|p" /proc/self/mountinfo |
      while read -r name options; do
        mkdir "sys/fs/cgroup/$name"
        mount -t cgroup -o "$options" cgroup "sys/fs/cgroup/$name"
      done
  fi
  pivot_root . mnt
  umount -l /mnt
  PATH=/usr/sbin:/usr/bin
  printf "%s\n" "$pid" >"$note"
  # Whoever waits here buries those whose parents are gone, too.
  read -r rest || true
' peers.sh "$root" "$pid" "$directory/data/first"
