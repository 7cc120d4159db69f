# What the scripts of this folder share: a small text, waiting, and a line for each check. Sourced.

CHECKS_FAILED=0
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH=${PYTHONPATH:-$(cd "$HERE/../.." && pwd)} OMP_NUM_THREADS=1

# check NAME COMMAND...: prints whether the command succeeds.
check() {
    local name=$1
    shift
    if "$@"; then echo "holds: $name"; else
        echo "FAILS: $name"
        CHECKS_FAILED=1
    fi
}

# wait_for SECONDS COMMAND...: tries the command every half second.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then return 1; fi
        sleep 0.5
    done
}

# rows_in RUN NUMBER: whether metrics.csv has as many rows.
rows_in() { [ "$(wc -l <"$1/metrics.csv")" -gt "$2" ]; }

# status_of RUN STATUS: whether summary.json has this status.
status_of() { python -c "import json, sys; sys.exit(json.load(open(sys.argv[1]))['status'] != sys.argv[2])" "$1/summary.json" "$2"; }

# same_losses RUN OTHER: whether both runs have the same training and validation losses within 1e-5 nats.
same_losses() { python "$HERE/compare_runs.py" "$1" "$2"; }

write_text() {
    python -c '
for number in range(2000):
    print(f"line {number} tells that {number % 7} and {number % 5} meet again .")' >"$1"
}
