# stage.sh: how the demo speaks (sourced): commands before they run, claims with their proof and time, a table at the end.

FAILED=0
ROWS=()
if [ -t 1 ]; then BOLD=$'\e[1m' GREEN=$'\e[32m' RED=$'\e[31m' DIM=$'\e[2m' PLAIN=$'\e[0m'; else BOLD='' GREEN='' RED='' DIM='' PLAIN=''; fi

say() { printf '%s%s%s\n' "$DIM" "$*" "$PLAIN"; }
title() { printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

now_ms() { local t=${EPOCHREALTIME/./}; echo $((t / 1000)); }
seconds() { printf '%d.%03d s' $(($1 / 1000)) $(($1 % 1000)); }

# Shows the lines of a long work in one place, on a terminal; as they are elsewhere.
bar() {
  local line step=0 marks='|/-\'
  if [ ! -t 1 ]; then cat; return; fi
  while IFS= read -r line; do
    step=$((step + 1))
    printf '\r\e[K%s %s' "${marks:step % 4:1}" "${line:0:100}"
  done
  printf '\r\e[K'
}

# Everything holm keeps for its user goes into the demo's directory too.
own_holm() { HOLM_SOCKET=$RUN/holm.sock HOLM_PROJECT=${HOLM_PROJECT-shop} XDG_STATE_HOME=$DEMO/home "$HOLM" "$@"; }

# holm ARGUMENT… — prints the command as a user would type it, then runs it against the demo's daemon.
holm() {
  local began word text=holm
  for word; do
    case $word in *[!A-Za-z0-9_./:=@%+,-]*|'') text+=" '$word'" ;; *) text+=" $word" ;; esac
  done
  printf '%s$%s %s\n' "$BOLD" "$PLAIN" "$text"
  own_holm "$@" </dev/null
}
# ask ARGUMENT… — the same without a word, for checks.
ask() { own_holm "$@" </dev/null 2>/dev/null; }

# show SECONDS CLAIM COMMAND… — the claim is kept when the command succeeds within the time; both go into the table.
show() {
  local seconds=$1 claim=$2 began deadline
  shift 2
  began=$(now_ms) deadline=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge "$deadline" ]; then
      row no "$claim" "not within $seconds s"
      return 0
    fi
    sleep 0.1
  done
  row yes "$claim" "$(seconds $(($(now_ms) - began)))"
}

# show_not CLAIM COMMAND… — the claim is kept when the command fails: what must not get through.
show_not() {
  local claim=$1 began
  shift
  began=$(now_ms)
  if "$@" >/dev/null 2>&1; then row no "$claim" "it got through"; return 0; fi
  row yes "$claim" "$(seconds $(($(now_ms) - began)))"
}

# show_below LIMIT_MS CLAIM VALUE_MS — the claim is kept when the value is below the limit.
show_below() { if [ "$3" -le "$1" ]; then row yes "$2" "$3 ms"; else row no "$2" "$3 ms, more than $1"; fi; }

# row yes|no CLAIM DETAIL
row() {
  ROWS+=("$1"$'\t'"$2"$'\t'"$3")
  if [ "$1" = yes ]; then printf '  %s✓%s %s %s(%s)%s\n' "$GREEN" "$PLAIN" "$2" "$DIM" "$3" "$PLAIN"
  else FAILED=$((FAILED + 1)); printf '  %s✗ %s (%s)%s\n' "$RED" "$2" "$3" "$PLAIN"; fi
}

table() {
  local line kept claim detail
  title "What was shown"
  for line in "${ROWS[@]}"; do
    IFS=$'\t' read -r kept claim detail <<<"$line"
    if [ "$kept" = yes ]; then kept="${GREEN}ok${PLAIN}"; else kept="${RED}NO${PLAIN}"; fi
    printf '  %s  %-72s %s\n' "$kept" "$claim" "$detail"
  done
  printf '\n  %d shown, %d failed, %d s in all\n' "$((${#ROWS[@]} - FAILED))" "$FAILED" "$SECONDS"
}

hint_after_failure() {
  printf '\nNot all went well. The daemon'"'"'s log: %s\nLook around: export HOLM_SOCKET=%s HOLM_PROJECT=shop; %s ls\nRemove it all: make demo-clean\n' \
    "$DEMO/daemon.log" "$RUN/holm.sock" "$HOLM" >&2
}
