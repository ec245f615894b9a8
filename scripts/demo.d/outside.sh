# outside.sh: the world beyond this host (sourced), in a network namespace joined to it by one cable.
#
#   host ── 198.51.100.1 ═══ 198.51.100.2 (a client), .22 (a friend), 203.0.113.80 (a server on the internet)
#
# The client reaches floating IPs through the host, as a machine beside it would. The server writes down who asked.
# What comes in by the cable has a routing table of its own: it may go to the pools and nowhere else, so that nothing
# of the demo ever leaves this machine.

OUTSIDE=$DEMO/outside           # handle of the namespace

make_outside() {
  say "making an outside: a client, a friend and a server on the internet, in a network namespace"
  touch "$OUTSIDE"
  unshare --net="$OUTSIDE" true
  ip link add $CABLE type veth peer name eth0 netns "$OUTSIDE"
  ip address add $HOST_ADDRESS/24 dev $CABLE
  ip link set $CABLE up
  ip route add $INTERNET_ADDRESS/32 via $CLIENT_ADDRESS dev $CABLE onlink
  ip rule add iif $CABLE lookup $TABLE priority $TABLE
  ip route add throw $POOLS table $TABLE
  ip route add throw 198.51.100.0/24 table $TABLE
  ip route add prohibit default table $TABLE
  outside ip link set lo up
  outside ip address add $CLIENT_ADDRESS/24 dev eth0
  outside ip address add $FRIEND_ADDRESS/24 dev eth0
  outside ip address add $INTERNET_ADDRESS/32 dev lo
  outside ip link set eth0 up
  outside ip route add default via $HOST_ADDRESS
  mkdir -p "$DEMO/internet"
  echo "hello from the internet" >"$DEMO/internet/index.html"
  : >"$DEMO/internet.log"
  nsenter --net="$OUTSIDE" busybox httpd -f -vv -p $INTERNET_ADDRESS:80 -h "$DEMO/internet" >>"$DEMO/internet.log" 2>&1 </dev/null &
  echo $! >"$DEMO/internet.pid"
}

# outside COMMAND… — runs it in the outside.
outside() { nsenter --net="$OUTSIDE" "$@"; }

# lead_inside RANGE ROUTER — the worst neighbour: sends packets for a private range straight to its router's outer address.
lead_inside() {
  local device
  device=$(ip -o route get "$2" | sed -n 's/.* dev \([^ ]*\).*/\1/p')
  ip route replace "$1" via "$2" dev "$device" onlink table $TABLE
}

# Who reached the internet's server last, as that server saw it.
last_caller() { sed -nE 's/^\[?(::ffff:)?([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+)\]?:[0-9]+: .*/\2/p' "$DEMO/internet.log" | tail -n 1; }

# probe_start ADDRESS FILE — asks http://ADDRESS/ ten times a second; each line of FILE is "milliseconds answer".
probe_start() {
  nsenter --net="$OUTSIDE" bash -c 'while :; do answer=$(curl -s -m 1 "http://$0/" | tr -d "\n"); t=${EPOCHREALTIME/./}; printf "%s %s\n" "$((t / 1000))" "$answer"; sleep 0.1; done' "$1" >"$2" </dev/null &
  echo $! >"$DEMO/probe.pid"
}
stop_probe() { end_process probe; }

# longest_gap_ms FILE — between two answers of a probe.
longest_gap_ms() { awk 'NF > 1 { if (last && $1 - last > longest) longest = $1 - last; last = $1 } END { print longest + 0 }' "$1"; }

end_process() {
  local pid
  pid=$(cat "$DEMO/$1.pid" 2>/dev/null) || return 0
  # Only if it is still ours: a process in the outside.
  if [ "$(readlink "/proc/$pid/ns/net" 2>/dev/null)" = "net:[$(stat -c %i "$OUTSIDE" 2>/dev/null)]" ]; then
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  fi
  rm -f "$DEMO/$1.pid"
}

remove_outside() {
  [ -e "$OUTSIDE" ] || return 0
  end_process probe
  end_process internet
  ip link delete $CABLE 2>/dev/null || true
  ip rule delete iif $CABLE lookup $TABLE 2>/dev/null || true
  ip route flush table $TABLE 2>/dev/null || true
  umount "$OUTSIDE" 2>/dev/null || true
  rm -f "$OUTSIDE"
}
