# debian.sh: Debian packages as raw material (sourced). Fetches and unpacks single packages without installing them, and installs
# some more into a root that is there.
#
# It keeps an apt of its own under $CACHE/apt, with its own sources and lists, so it gives the same packages on every
# distribution that has apt-get and Debian's archive keyring, and never touches the machine's own package state. The
# machine's apt settings (a proxy, say) hold here too.

RELEASE=${HOLM_DEBIAN_RELEASE:-bookworm}
MIRROR=${HOLM_DEBIAN_MIRROR:-http://deb.debian.org/debian}
SECURITY_MIRROR=${HOLM_DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
LISTS_AGE_DAYS_MAX=7
APT=$CACHE/apt/$RELEASE

debian_sources() {
  printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "$MIRROR" "$RELEASE" "$KEYRING" "$MIRROR" "$RELEASE-updates" "$KEYRING" "$SECURITY_MIRROR" "$RELEASE-security"
}

apt_options() {
  printf '%s\n' -q -o "Dir::State=$APT/state" -o "Dir::Cache=$APT/cache" -o "Dir::Etc::SourceList=$APT/sources.list" \
    -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
    -o "Dir::State::status=$APT/state/status" -o Acquire::Retries=3 -o Acquire::Languages=none -o APT::Sandbox::User=root \
    -o APT::Architecture=amd64 -o APT::Architectures::=amd64
}
in_apt() { local options; mapfile -t options < <(apt_options); "$@" "${options[@]}"; }

# debian_lists — fetches the package lists when there are none or they are old; old ones do when the mirror is away.
debian_lists() {
  mkdir -p "$APT/state/lists/partial" "$APT/cache/archives/partial"
  touch "$APT/state/status"
  (
    flock 8
    debian_sources >"$APT/sources.new"
    if cmp -s "$APT/sources.new" "$APT/sources.list" && [ -n "$(find "$APT/fetched" -mtime -"$LISTS_AGE_DAYS_MAX" 2>/dev/null)" ]; then exit 0; fi
    mv "$APT/sources.new" "$APT/sources.list"
    progress "fetching Debian's package lists ($RELEASE)"
    if in_apt apt-get update >"$APT/log" 2>&1 && ! grep -q '^[EW]: Failed' "$APT/log"; then touch "$APT/fetched"
    elif [ -e "$APT/fetched" ]; then progress "the mirror does not answer; going on with the lists of $(date -r "$APT/fetched" +%F)"
    else cat "$APT/log" >&2; fail "cannot fetch Debian's package lists from $MIRROR"; fi
  ) 8>"$APT/.lock"
}

# debian_versions PACKAGE… — "package version" lines of what would be fetched, for a content key.
debian_versions() {
  in_apt apt-cache policy "$@" | awk '/^[^ ]/ { name = $1 } /^  Candidate:/ { print name, $2; if ($2 == "(none)") bad = 1 } END { exit bad }' ||
    fail "a package is not in Debian $RELEASE: $*"
}

# debian_unpack DIRECTORY PACKAGE… — unpacks these packages (not what they depend on) into the directory.
debian_unpack() {
  local directory=$1 package file
  shift
  mkdir -p "$directory" "$APT/cache/unpack"
  for package; do
    # Said aloud, since a caller in a condition is not stopped by `set -e`.
    file=$(debian_fetch "$package") || return
    dpkg-deb -x "$file" "$directory" || return
  done
}

# debian_fetch PACKAGE — prints the path of its .deb, fetched into the private cache when it is not there (apt checks the hash).
debian_fetch() {
  local package=$1 file url
  url=$(in_apt apt-get download --print-uris "$package" | grep "^'" | tail -n 1) || fail "no download address for package $package"
  file=$(awk '{ print $2 }' <<<"$url")
  file=$APT/cache/unpack/$file
  if [ ! -e "$file" ]; then
    progress "fetching ${file##*/}"
    (
      partial=$(mktemp -d "$APT/cache/unpack/.fetch.XXXXXX")
      trap 'rm -rf "$partial"' EXIT
      cd "$partial"
      in_apt apt-get download "$package" >"$partial/log" 2>&1 || { cat "$partial/log" >&2; exit 1; }
      mv -- *.deb "$file"
    ) || fail "cannot fetch package $package"
  fi
  printf '%s\n' "$file"
}

# debian_add ROOT PACKAGE[-]… — installs packages and what they need into a Debian root, and removes those with a minus. Resolved
# and fetched from outside; nothing is mounted, and no service is started.
debian_add() {
  local root=$1 options device
  shift
  mapfile -t options < <(apt_options)
  for device in 'null c 1 3' 'zero c 1 5' 'full c 1 7' 'random c 1 8' 'urandom c 1 9' 'tty c 5 0'; do
    # shellcheck disable=SC2086  # a name, a kind and two numbers.
    [ -e "$root/dev/${device%% *}" ] || mknod -m 666 "$root/dev/"$device
  done
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/log/apt"
  DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${options[@]}" \
    -o "Dir::State::status=$root/var/lib/dpkg/status" -o "Dir::State::extended_states=$root/var/lib/apt/extended_states" \
    -o "Dir::Cache::archives=$root/var/cache/apt/archives" -o "Dir::Log=$root/var/log/apt" \
    -o "DPkg::Chroot-Directory=$root" -o DPkg::Options::=--force-unsafe-io -o DPkg::Use-Pty=0 \
    "$@" </dev/null >"$BUILD/log" 2>&1 || { tail -n 40 "$BUILD/log" >&2; fail "the packages could not be installed (apt's last words are above)"; }
  rm -rf "$root/usr/sbin/policy-rc.d" "$root"/var/cache/apt/* "$root"/var/log/*
}

# kernel_package — prints the package of Debian's newest cloud kernel.
kernel_package() { in_apt apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }'; }
