# daemon.sh: the demo's own holm daemon (sourced). A shell job, so that what it leaves on the machine is what holm leaves.

# start_daemon — starts it and waits until it answers; sets DAEMON_MS to how long that took.
start_daemon() {
  local began deadline pid
  mkdir -p "$DEMO/state"
  printf '%s$%s %s\n' "$BOLD" "$PLAIN" "holm serve --state $DEMO/state --run $RUN --prefix $PREFIX --external-v4 $POOL_DEFAULT &"
  began=$(now_ms)
  setsid "$HOLM" serve --state "$DEMO/state" --run "$RUN" --prefix "$PREFIX" --external-v4 "$POOL_DEFAULT" >>"$DEMO/daemon.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$DEMO/daemon.pid"
  deadline=$((SECONDS + 30))
  until daemon_answers; do
    # Not daemon_lives: until setsid and holm are loaded, the process goes by another name.
    kill -0 "$pid" 2>/dev/null || { tail -n 20 "$DEMO/daemon.log" >&2; fail "the daemon ended at once (its last words are above)"; }
    [ $SECONDS -lt $deadline ] || { tail -n 20 "$DEMO/daemon.log" >&2; fail "the daemon does not answer after 30 s"; }
    sleep 0.05
  done
  DAEMON_MS=$(($(now_ms) - began))
  say "the daemon answers after $DAEMON_MS ms"
}

daemon_answers() { [ -S "$RUN/holm.sock" ] && HOLM_PROJECT=admin ask version >/dev/null; }

# The process that was started, and not another that was given its number since.
daemon_lives() {
  local pid
  pid=$(cat "$DEMO/daemon.pid" 2>/dev/null) || return 1
  kill -0 "$pid" 2>/dev/null && { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -q "serve --state $DEMO/state"
}

# As a power cut would end it: no last words, no clean-up.
kill_daemon() {
  local pid
  pid=$(cat "$DEMO/daemon.pid")
  printf '%s$%s %s\n' "$BOLD" "$PLAIN" "kill -9 $pid"
  kill -9 "$pid"
  wait "$pid" 2>/dev/null || true
  wait_for_end
}

stop_daemon() {
  daemon_lives || { rm -f "$DEMO/daemon.pid"; return 0; }
  kill "$(cat "$DEMO/daemon.pid")"
  wait_for_end
  rm -f "$DEMO/daemon.pid"
}

wait_for_end() {
  local deadline=$((SECONDS + 40))
  while daemon_lives; do
    [ $SECONDS -lt $deadline ] || fail "the daemon (process $(cat "$DEMO/daemon.pid")) does not end"
    sleep 0.05
  done
}
