# story.sh: what the demo tells (sourced), one function per chapter, in the order of story().

KEY=$DEMO/key
SSH_OPTIONS=(-i "$KEY" -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR)

story() {
  chapter_project
  chapter_instances
  chapter_talk
  chapter_closed
  chapter_floating_ip
  chapter_move
  chapter_hands
  chapter_crash
  chapter_throwaway
}

# unless_there NOUN NAME COMMAND… — what an earlier run made is used again.
unless_there() {
  local noun=$1 name=$2
  shift 2
  if ask "$noun" show "$name" -o name >/dev/null; then say "$noun $name is there already"; else holm "$@"; fi
}

chapter_project() {
  title "1. A project has its private network at once"
  HOLM_PROJECT=admin unless_there project shop project create shop
  say "(from here on with HOLM_PROJECT=shop)"
  show 5 "project shop has a network, a subnet and a router" has_network
  say "An external network whose addresses outsiders see as they are; holm's own one hides behind this host's address:"
  HOLM_PROJECT=admin unless_there network street network create street --kind external --subnet $POOL_STREET
  holm router set-gateway default street
  ROUTER=$(ask router ls -o json | grep -oE '198\.18\.251\.[0-9]+' | head -n 1)
  unless_there image debian-12 image import debian-12 --file "$IMAGES/debian-12/current/disk.qcow2" --login debian
  unless_there image web image import web --oci-layout "$IMAGES/web/current/layout"
  [ -e "$KEY" ] || ssh-keygen -q -t ed25519 -N '' -C demo -f "$KEY"
  unless_there keypair demo keypair import demo "$KEY.pub"
  if ask security-group show web -o name >/dev/null; then say "security group web is there already"; return 0; fi
  holm security-group create web
  holm security-group rule add web tcp 80
  holm security-group rule add web tcp 22 --from $FRIEND_ADDRESS
}
has_network() { ask network ls -o name | grep -qx default && ask subnet ls -o name | grep -qx default && ask router ls -o name | grep -qx default; }

chapter_instances() {
  title "2. A virtual machine and a container, side by side"
  runs db || ask rm -f db || true
  runs web || ask rm -f web || true
  unless_there instance db run --name db --flavor g1.c1m512 --key demo --security-group default --security-group web debian-12
  unless_there instance web run --name web -d --flavor g1.c1m512 --security-group default --security-group web web
  holm ls
  show 600 "db, a virtual machine, takes a log in with the key" in_db true
  show 5 "db has a kernel of its own; web shares the host's" kernels_differ
  show 5 "db has the CPU of its flavor and a process of its own on the host" one_cpu
  side_by_side
  show 5 "web takes less memory of this host than db" lighter
}
# What each takes of this host, its processes and their parts of what they share included.
side_by_side() {
  local name
  printf '  %-6s %-10s %-12s %s\n' name kind memory kernel
  for name in db web; do
    printf '  %-6s %-10s %-12s %s\n' "$name" "$(field "$name" kind)" "$(memory_mib "$name") MiB" "$("in_$name" uname -r)"
  done
}
lighter() { [ "$(memory_mib web)" -lt "$(memory_mib db)" ]; }
field() { ask info "$1" -o json | sed -n "s/.*\"$2\": *\"\([^\"]*\)\".*/\1/p" | head -n 1; }
pid_of() { ask info "$1" -o json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' | head -n 1; }
with_children() {
  local child
  echo "$1"
  for child in $(pgrep -P "$1"); do with_children "$child"; done
}
memory_mib() {
  local pid kib=0
  for pid in $(with_children "$(pid_of "$1")"); do
    kib=$((kib + $(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null || echo 0)))
  done
  echo $((kib / 1024))
}
runs() { ask info "$1" -o json | grep -q '"phase": *"running"'; }
# One log in serves all checks: each would cost an emulated machine seconds of arithmetic.
in_db() { ask ssh db -i "$KEY" --option ControlMaster=auto --option "ControlPath=$DEMO/ssh-%C" --option ControlPersist=300 -- "$@"; }
log_out() {
  local socket
  for socket in "$DEMO"/ssh-*; do
    [ ! -S "$socket" ] || ssh -o "ControlPath=$socket" -O exit db 2>/dev/null || rm -f "$socket"
  done
}
in_web() { ask exec web -- "$@"; }
kernels_differ() { [ "$(in_db uname -r)" != "$(uname -r)" ] && [ "$(in_web uname -r)" = "$(uname -r)" ]; }
one_cpu() { [ "$(in_db nproc)" = 1 ] && grep -aq qemu "/proc/$(pid_of db)/cmdline"; }

chapter_talk() {
  title "3. They find each other by name, and the internet"
  # An earlier run left the floating IP at db, which is then seen instead of the router.
  if ask floating-ip show front -o json | grep -q '"target": *{'; then holm floating-ip detach front; fi
  show 10 "db reaches web by name (HTTP)" in_db curl -sf -m 3 http://web/
  show 10 "web reaches db by name (ping)" in_web ping -c 1 -W 2 db
  show 10 "db reaches the internet" in_db curl -sf -m 3 http://$INTERNET_ADDRESS/
  show 5 "the internet saw the router's address ($ROUTER), not db's" caller_is_router
  : >"$DEMO/internet.log"
  show 10 "web reaches the internet" in_web curl -sf -m 3 http://$INTERNET_ADDRESS/
  show 5 "the internet saw the router's address ($ROUTER), not web's" caller_is_router
}
caller_is_router() { [ "$(last_caller)" = "$ROUTER" ]; }

chapter_closed() {
  title "4. Nothing from outside reaches either"
  local name address
  say "Even a neighbour who knows the private range and sends packets for it to the router gets nowhere:"
  lead_inside 10.0.0.0/24 "$ROUTER"
  for name in db web; do
    address=$(address_of $name)
    show_not "the client does not reach $name at $address, port 80" outside curl -sf -m 1 "http://$address/"
    show_not "nor $name's port 22" outside busybox nc -w 1 "$address" 22 -e /bin/true
    show_not "nor $name by ping" outside ping -c 1 -W 1 "$address"
  done
}
address_of() { ask info "$1" -o json | grep -oE '"10\.0\.0\.[0-9]+"' | head -n 1 | tr -d '"'; }

chapter_floating_ip() {
  title "5. A floating IP opens web on port 80, and nothing else"
  unless_there floating-ip front floating-ip create --name front --network street
  holm floating-ip attach front web
  FLOATING=$(ask floating-ip show front -o json | grep -oE '"198\.18\.251\.[0-9]+"' | head -n 1 | tr -d '"')
  show 5 "the client reads web's page at http://$FLOATING/" page_is "It works!"
  show_not "its port 22 is closed to the client" outside busybox nc -w 1 "$FLOATING" 22 -e /bin/true
  show_not "its port 81 is closed" outside busybox nc -w 1 "$FLOATING" 81 -e /bin/true
  show_not "its ping is not answered" outside ping -c 1 -W 1 "$FLOATING"
}
page_is() { outside curl -sf -m 2 "http://$FLOATING/" | grep -q "$1"; }

chapter_move() {
  title "6. The floating IP moves to db while a client keeps asking"
  serve_page
  probe_start "$FLOATING" "$DEMO/probe"
  show 5 "a client is asking ten times a second, web answers" grep -q "It works!" "$DEMO/probe"
  holm floating-ip move front db
  show 10 "db answers at the same address" grep -q "db speaking" "$DEMO/probe"
  stop_probe
  show_below 1000 "the longest gap between two answers" "$(longest_gap_ms "$DEMO/probe")"
  show 10 "the friend logs in to db at the floating IP" friend_logs_in
  show_not "the client, at another address, does not" outside ssh "${SSH_OPTIONS[@]}" -o ConnectTimeout=2 -b $CLIENT_ADDRESS "debian@$FLOATING" true
}
friend_logs_in() { outside ssh "${SSH_OPTIONS[@]}" -o ConnectTimeout=5 -b $FRIEND_ADDRESS "debian@$FLOATING" true </dev/null; }

# A page on db's port 80, once.
serve_page() {
  in_db curl -sf -m 3 http://localhost/ >/dev/null && return
  in_db sh -c "mkdir -p page && echo 'db speaking' >page/index.html && sudo systemd-run -q --unit page python3 -m http.server 80 --directory /home/debian/page" || true
  show 20 "db serves a page of its own on port 80" in_db curl -sf -m 3 http://localhost/
}

chapter_hands() {
  title "7. Hands on"
  holm ssh db -i "$KEY" -- hostname
  show 30 "the console of db shows what is typed" console_types
}
console_types() {
  local word=typed$RANDOM
  { printf '\r'; sleep 1; printf '%s\r' $word; sleep 1; } |
    HOLM_SOCKET=$RUN/holm.sock HOLM_PROJECT=shop timeout 10 "$HOLM" console db 2>/dev/null | tr -d '\0' | grep -aq $word
}

chapter_crash() {
  title "8. The daemon dies; the guests do not notice"
  local db_before web_before
  db_before=$(in_db cat /proc/sys/kernel/random/boot_id) web_before=$(in_web stat -c %Y /proc/1)
  probe_start "$FLOATING" "$DEMO/probe"
  kill_daemon
  show 5 "with the daemon dead, db still answers outside" page_is "db speaking"
  start_daemon
  show_below 5000 "the daemon is back" "$DAEMON_MS"
  show 10 "db is the same boot as before" same "$db_before" in_db cat /proc/sys/kernel/random/boot_id
  show 10 "web is the same process as before" same "$web_before" in_web stat -c %Y /proc/1
  stop_probe
  show_below 1000 "the longest gap between two answers of db" "$(longest_gap_ms "$DEMO/probe")"
}
same() { local wanted=$1; shift; [ -n "$wanted" ] && [ "$("$@")" = "$wanted" ]; }

chapter_throwaway() {
  title "9. A machine for a moment"
  local files=$IMAGES/micro/current
  unless_there image micro-kernel image import micro-kernel --kind kernel --file "$files/kernel"
  unless_there image micro-initrd image import micro-initrd --kind initrd --file "$files/initrd"
  unless_there image micro image import micro --file "$files/disk.qcow2" --kernel micro-kernel --initrd micro-initrd --cmdline "$(cat "$files/cmdline")" --login root
  holm run --name tiny --rm --flavor g1.c1m512 --key demo micro
  show 60 "tiny, a virtual machine of 3 MB, takes a log in" ask ssh tiny -i "$KEY" -- true
  holm stop tiny
  show 20 "it is gone with all it had" is_gone tiny
}
is_gone() { ! ask info "$1" -o name; }

# Deletes what the story made, through holm; part of "clean".
empty_cloud() {
  HOLM_PROJECT=admin ask project show shop -o name >/dev/null || return 0
  ask rm -f tiny || true
  delete_those_here instance "rm -f" db web
  delete_those_here floating-ip "floating-ip release -y" front
  delete_those_here image "image rm -y" debian-12 web micro micro-kernel micro-initrd
  HOLM_PROJECT=admin holm project delete shop -y
}

# delete_those_here NOUN COMMAND NAME…
delete_those_here() {
  local noun=$1 command=$2 name here=()
  shift 2
  for name; do
    if ask "$noun" show "$name" -o name >/dev/null; then here+=("$name"); fi
  done
  # The command is words, not one word.
  # shellcheck disable=SC2086
  [ ${#here[@]} = 0 ] || holm $command "${here[@]}"
}

next_steps() {
  cat <<NEXT

What to type next:
  export HOLM_SOCKET=$RUN/holm.sock HOLM_PROJECT=shop PATH=$(dirname "$HOLM"):\$PATH
  holm ls                     what runs
  holm info db                all about the virtual machine
  holm ssh db -i $KEY         a shell in the virtual machine
  holm exec -it web bash      a shell in the container
  holm console db             its serial console (Ctrl-] leaves)
  holm events -f              what happens
  make demo-clean             removes all of it
NEXT
}
