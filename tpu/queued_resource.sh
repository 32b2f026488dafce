#!/usr/bin/env bash
# A TPU slice by Google Cloud's queued resources: from asking for it to having deleted it.
#
#   bash tpu/queued_resource.sh [--dry-run] COMMAND
#
#   create   asks for the slice            wait     until it is there
#   setup    installs medjax on its hosts  run      starts the training on all hosts
#   logs     follows the first host's log  status   one word: ACTIVE, SUSPENDED, ...
#   keep     all of these, and again after every preemption, until the run ends; then delete
#   delete   gives everything back
#
# Settings, by the environment:
#   PROJECT ZONE        of the cloud                   NAME       of slice and request
#   ACCELERATOR         v5litepod-64, v6e-64, ...      RUNTIME    software version of the hosts
#   SOURCE              gs:// archive of medjax (make it with `git archive --format=tar.gz HEAD`)
#   TRAIN               what every host runs, e.g. "medjax.pretrain config.yaml --run_dir /mnt/runs/run"
#   SPOT=1              cheaper, and may be taken away
#   SLICES=2            several slices at once
#   POLL=30             seconds between two looks at the state
# The run directory and the prepared shards must lie on a file system that all hosts see and that
# outlives the slice (Filestore, or a bucket mounted by gcsfuse); medjax reads no gs:// paths yet.
# MOUNT is the command that mounts it on a host, run by setup.
set -euo pipefail

EXIT_PREEMPTED=75 # a checkpoint is saved; the same command goes on
EXIT_LOST=76      # a host is gone; the others have ended
DRY=

usage() { sed -n '2,/^set -euo/p' "$0" | sed '$d' | sed 's/^# \{0,1\}//'; }

need() {
  local setting missing=()
  for setting in "$@"; do [ -n "${!setting:-}" ] || missing+=("$setting"); done
  [ ${#missing[@]} -eq 0 ] && return
  echo "queued_resource.sh: not set: ${missing[*]}; see --help" >&2
  exit 2
}

# Runs a command of the cloud, or only shows it.
cloud() {
  if [ -n "$DRY" ]; then
    printf 'gcloud'; printf ' %q' "$@"; printf '\n'
  else
    gcloud "$@"
  fi
}

where() { printf '%s\n' --project "$PROJECT" --zone "$ZONE"; }

create() {
  need PROJECT ZONE NAME ACCELERATOR RUNTIME
  local arguments
  mapfile -t arguments < <(where)
  arguments+=(--accelerator-type "$ACCELERATOR" --runtime-version "$RUNTIME")
  if [ "${SLICES:-1}" -gt 1 ]; then
    arguments+=(--node-count "$SLICES" --node-prefix "$NAME")
  else
    arguments+=(--node-id "$NAME")
  fi
  [ "${SPOT:-}" = 1 ] && arguments+=(--spot)
  cloud compute tpus queued-resources create "$NAME" "${arguments[@]}"
}

status() {
  need PROJECT ZONE NAME
  local arguments
  mapfile -t arguments < <(where)
  cloud compute tpus queued-resources describe "$NAME" "${arguments[@]}" --format 'value(state.state)'
}

# 0: there; 1: it will not come as it is and has to be asked for anew.
wait_for() {
  local state
  while :; do
    if [ -n "$DRY" ]; then status; return 0; fi
    state=$(status)
    echo "$(date -u +%FT%TZ) $NAME: $state"
    case $state in
      ACTIVE) return 0 ;;
      FAILED | SUSPENDED | SUSPENDING | DELETING | '') return 1 ;;
    esac
    sleep "${POLL:-30}"
  done
}

nodes() {
  local slice
  if [ "${SLICES:-1}" -eq 1 ]; then echo "$NAME"; return; fi
  for ((slice = 0; slice < SLICES; slice++)); do echo "$NAME-$slice"; done
}

# Runs a command on the hosts of every slice: on_hosts all|0 COMMAND
on_hosts() {
  local arguments node pids=() failed=0 pid
  mapfile -t arguments < <(where)
  for node in $(nodes); do
    cloud compute tpus tpu-vm ssh "$node" "${arguments[@]}" --worker "$1" --command "$2" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=$?; done
  return "$failed"
}

setup() {
  need PROJECT ZONE NAME SOURCE
  on_hosts all "set -e; rm -rf medjax; mkdir medjax; gcloud storage cp '$SOURCE' - | tar xz -C medjax; cd medjax; EXTRAS=tpu,gcs bash scripts/setup.sh; ${MOUNT:-true}"
}

run() {
  need PROJECT ZONE NAME TRAIN
  on_hosts all "cd medjax && .venv/bin/python -m $TRAIN 2>&1 | tee -a ~/medjax.log; exit \${PIPESTATUS[0]}"
}

logs() {
  need PROJECT ZONE NAME
  on_hosts 0 'tail -n +1 -F medjax.log'
}

delete() {
  need PROJECT ZONE NAME
  local arguments
  mapfile -t arguments < <(where)
  cloud compute tpus queued-resources delete "$NAME" "${arguments[@]}" --force --quiet
}

# Until the run has ended: what is taken away is asked for again.
keep() {
  need PROJECT ZONE NAME ACCELERATOR RUNTIME SOURCE TRAIN
  local code
  trap 'echo "queued_resource.sh: interrupted; $NAME is still there, and costs: delete gives it back" >&2' INT TERM
  while :; do
    create
    code=0
    if wait_for; then
      setup && run || code=$?
    else
      code=$EXIT_LOST
    fi
    if [ "$code" -eq "$EXIT_LOST" ] || [ "$code" -eq "$EXIT_PREEMPTED" ]; then
      echo "$NAME: lost or preempted; asking again"
    elif [ "$code" -ne 0 ] && ! still_there; then
      echo "$NAME: gone while it ran; asking again"
    else
      break
    fi
    delete
  done
  delete
  return "$code"
}

still_there() { [ -n "$DRY" ] || [ "$(status)" = ACTIVE ]; }

[ "${1:-}" = --dry-run ] && { DRY=1; shift; }
case ${1:-} in
  create | status | setup | run | logs | delete | keep) "$1" ;;
  wait) wait_for ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
