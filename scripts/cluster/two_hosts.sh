#!/usr/bin/env bash
# Training on two hosts by torchrun: equal to one host; a slow cable; a cable cut for 20 seconds; a process that dies on one
# host; a host without power.
#
#   sudo scripts/cluster/two_hosts.sh [FOLDER [PART...]]     # parts: two slow cut killed down; all by default
#
# The hosts are network namespaces of this machine (iproute2; Linux) with a folder in common. Takes about five minutes.
set -euo pipefail
source "$(dirname "$0")/hosts.sh"
source "$(dirname "$0")/checks.sh"

folder=${1:-$(mktemp -d)}
parts=("${@:2}")
if ((${#parts[@]} == 0)); then parts=(two slow cut killed down); fi
mkdir -p "$folder"
cd "$folder"
write_text text.txt
trap remove_hosts EXIT
make_hosts

# Without this, torchrun's first host does not tell a host that joins later where the store is (PyTorch 2.11 to 2.15).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

train=(-m torch_linguist.cli.train data=text data.path=text.txt model=lstm model.embedding_dim=16 model.hidden_size=16
    model.output=full "stages=[fit]" optim.lr=0.01 optim.weight_decay=0 trainer.batch_size=8 trainer.sequence_length=16
    trainer.eval_every=100 trainer.log_every=10 trainer.device=cpu trainer.precision=fp32 model.dropout=0 checkpoint.every_steps=50)

# torchrun_on HOST MAX_STEPS NAME [OVERRIDE...]
torchrun_on() {
    local host=$1 steps=$2 name=$3
    shift 3
    on_host "$host" nice torchrun --nnodes=2 --nproc-per-node=1 --max-restarts=3 --rdzv-backend=c10d \
        --rdzv-id="$name" --rdzv-endpoint=tl-a:29500 "${train[@]}" trainer.max_steps="$steps" name="$name" \
        resume=auto "$@" >>"$name-$host.txt" 2>&1
}

# on_both MAX_STEPS NAME [OVERRIDE...]: sets the process numbers $a and $b.
on_both() {
    torchrun_on b "$@" & b=$!
    torchrun_on a "$@" & a=$!
}

check_two() {
    echo "== two hosts"
    on_both 600 two
    check "torchrun ends with 0 on both hosts" both_end
    check "the losses are those of one host" same_losses outputs/one outputs/two
}

check_slow() {
    echo "== a slow cable: $(slow_cable)"
    local begin=$SECONDS
    on_both 600 slow
    both_end || true
    usual_cable
    echo "600 updates in $((SECONDS - begin)) s, the start included"
    check "the losses are those of one host" same_losses outputs/one outputs/slow
}

check_cut() {
    echo "== the cable is cut for 20 s"
    local before begin
    on_both 600 cut
    check "training begins" wait_for 120 rows_in outputs/cut 20
    cut_cable
    sleep 20
    before=$(wc -l <outputs/cut/metrics.csv)
    mend_cable
    begin=$SECONDS
    check "it goes on by itself" wait_for 120 rows_in outputs/cut "$before"
    echo "first row $((SECONDS - begin)) s after the cable is whole"
    both_end || true
    check "the losses are those of one host" same_losses outputs/one outputs/cut
}

check_killed() {
    echo "== the training process on host tl-b is killed"
    on_both 600 killed
    check "training begins" wait_for 120 rows_in outputs/killed 20
    ip netns pids tl-b | xargs ps -o pid=,args= -p | awk '/cli.train/ && !/torchrun/ { print $1 }' | xargs kill -KILL
    check "both hosts end with 0" both_end
    check "torchrun started it again" grep -q "^resuming" killed-a.txt
    check "the losses are those of one host" same_losses outputs/one outputs/killed
}

check_down() {
    echo "== host tl-b loses its power, and comes back"
    local begin
    on_both 600 down
    check "training begins" wait_for 120 rows_in outputs/down 20
    power_off b
    begin=$SECONDS
    check "the other host notices" wait_for 180 grep -q "cannot be reached\|another process" down-a.txt
    echo "noticed after $((SECONDS - begin)) s: $(grep -m 1 "another process" down-a.txt)"
    mend_cable
    torchrun_on b 600 down & b=$!
    check "both hosts end with 0" both_end
    grep -m 1 "^resuming" down-a.txt || true
    check "the losses are those of one host" same_losses outputs/one outputs/down
}

both_end() { wait "$a" && wait "$b"; }

echo "== one host"
nice python "${train[@]}" trainer.max_steps=600 name=one >one.txt 2>&1
for part in "${parts[@]}"; do "check_$part"; done
exit "$CHECKS_FAILED"
