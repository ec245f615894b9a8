# cache.sh: the cache of built images (sourced). An image is a directory, found by its name and the key of its content.
#
#   $HOLM_IMAGE_CACHE/NAME/KEY/…      one built image, complete from the moment it can be seen
#   $HOLM_IMAGE_CACHE/NAME/current    link to the KEY that was asked for last
#
# KEY is a hash over the scripts that build it and the versions of the packages in it. An image is built in a directory
# beside its place and renamed into it, so a killed or failed build leaves nothing that could be taken for an image.

CACHE=${HOLM_IMAGE_CACHE:-$HOME/.cache/holm/images}
IMAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH="$PATH:/usr/sbin:/sbin"

progress() { printf '%s: %s\n' "${NAME:-images}" "$*" >&2; }
fail() { progress "$*"; exit 1; }

# content_key FILE… — hash of these files' content and of the standard input.
content_key() { { cat "$@"; cat; } | sha256sum | cut -c1-16; }

# cached KEY — true when image $NAME is there under this key; then it is made the current one.
cached() { [ -d "$CACHE/$NAME/$1" ] && point_current "$1"; }

point_current() {
  [ "$(readlink "$CACHE/$NAME/current" 2>/dev/null)" = "$1" ] && return
  ln -sfn "$1" "$CACHE/$NAME/.current.$$" && mv -T "$CACHE/$NAME/.current.$$" "$CACHE/$NAME/current"
}

# locked COMMAND… — runs it while no other build of image $NAME runs on this machine.
locked() {
  mkdir -p "$CACHE/$NAME"
  exec 9>"$CACHE/$NAME/.lock"
  flock -n 9 || { progress "another build of it is running; waiting"; flock 9; }
  "$@"
}

# begin_build — makes the directory BUILD (result in $BUILD/out, scratch space beside it), removed however this ends.
begin_build() {
  BUILD=$(mktemp -d "$CACHE/$NAME/.build.XXXXXX")
  mkdir "$BUILD/out"
  chmod 755 "$BUILD" "$BUILD/out"
  trap 'rm -rf --one-file-system "$BUILD"' EXIT
  trap 'exit 130' INT TERM
}

# finish_build KEY — shows the result under its key and removes older ones of the same name, the newest two excepted.
finish_build() {
  rm -rf "${CACHE:?}/$NAME/$1"
  mv -T "$BUILD/out" "$CACHE/$NAME/$1"
  point_current "$1"
  find "$CACHE/$NAME" -mindepth 1 -maxdepth 1 -type d ! -name '.*' -printf '%T@ %p\n' | sort -rn | tail -n +3 | cut -d' ' -f2- |
    while IFS= read -r old; do if [ "${old##*/}" != "$1" ]; then rm -rf "$old"; fi; done
}
