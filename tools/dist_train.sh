#!/bin/sh
# Train on several devices: sh tools/dist_train.sh CONFIG [NUM_DEVICES] [train_net.py's options] [KEY VALUE ...]
set -eu

usage() {
    cat >&2 <<'END'
usage: sh tools/dist_train.sh CONFIG [NUM_DEVICES] [train_net.py's options] [KEY VALUE ...]

CONFIG       a YAML file, or its name in configs/; a config of mmsegmentation that has one of ours
             beside it (run_scripts/mm_configs.json)
NUM_DEVICES  processes of this machine, one a device; without it, as many as
             SDAA_VISIBLE_DEVICES or CUDA_VISIBLE_DEVICES name

Environment: NNODES (1) machines, of which this is NODE_RANK (0); MASTER_ADDR, PORT (29500): where
they meet; PYTHON (python).
END
}

fail() {
    printf 'dist_train.sh: error: %s\n' "$1" >&2
    exit 2
}

# A mistake in the words: how they go, then what was wrong
misused() {
    usage
    fail "$1"
}

# The words as one line to paste into a shell
line() {
    for word; do
        case $word in
            '' | *[!A-Za-z0-9_./:=,@%+-]*)
                printf " '%s'" "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
}

is_number() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
}

case ${1-} in
    -h | --help) usage; exit 0 ;;
    '') misused 'CONFIG is missing; give a YAML file' ;;
    -*) misused "CONFIG is '$1'; give a YAML file, then the options" ;;
esac
config=$1
shift

if is_number "${1-}"; then
    num_devices=$1 # whether there are so many, train_net.py finds out
    shift
else
    # A number below 0 hides the devices after it.
    visible=${SDAA_VISIBLE_DEVICES:-${CUDA_VISIBLE_DEVICES-}}
    num_devices=$(printf '%s' "$visible" | tr , '\n' | sed '/^ *-/,$d' | grep -c '[^ ]' || true)
    if [ "$num_devices" -eq 0 ]; then
        case ${1-} in
            '' | -*) misused "NUM_DEVICES is missing, and neither SDAA_VISIBLE_DEVICES nor \
CUDA_VISIBLE_DEVICES names devices; give a number" ;;
            *) misused "NUM_DEVICES is '$1'; give a number" ;;
        esac
    fi
fi

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-python}
case $config in
    *.py) config=$("$python" "$root/run_scripts/mm_names.py" "$config") || exit 2 ;;
esac

if [ "${NNODES:-1}" -gt 1 ]; then
    [ -n "${MASTER_ADDR-}" ] || fail "NNODES is $NNODES without MASTER_ADDR; give the host of machine 0"
    set -- --num-machines "$NNODES" --machine-rank "${NODE_RANK:-0}" \
        --dist-url "tcp://$MASTER_ADDR:${PORT:-29500}" "$@"
elif [ -n "${PORT-}" ]; then
    set -- --dist-url "tcp://${MASTER_ADDR:-127.0.0.1}:$PORT" "$@"
fi
set -- "$python" "$root/train_net.py" --config-file "$config" --num-gpus "$num_devices" "$@"
line "$@" | sed 's/^ //'
echo
exec "$@"
