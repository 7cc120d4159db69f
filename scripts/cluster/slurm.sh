#!/usr/bin/env bash
# Sweeps and trainings on SLURM: array jobs, time limits, scancel, and a node that fails.
#
#   sudo scripts/cluster/slurm.sh [FOLDER [PART...]]     # parts: sweep array limit cancel node; all by default
#
# Starts a cluster of its own (see slurm_cluster.sh for the Debian packages). Takes about fifteen minutes.
# LIMITED_STEPS is the number of updates that shall not fit into the time limit of LIMIT_MINUTES (1).
set -euo pipefail
source "$(dirname "$0")/checks.sh"
source "$(dirname "$0")/slurm_cluster.sh"

folder=${1:-$(mktemp -d)}
parts=("${@:2}")
if ((${#parts[@]} == 0)); then parts=(sweep array limit cancel node); fi
mkdir -p "$folder"
cd "$folder"
write_text text.txt
trap stop_cluster EXIT
start_cluster "$folder/cluster"

text=(data=text data.path=text.txt)
small=(model=lstm model.embedding_dim=16 model.hidden_size=16 model.output=full model.dropout=0 "stages=[fit]"
    optim.lr=0.01 optim.weight_decay=0 trainer.batch_size=8 trainer.sequence_length=16 trainer.eval_every=100
    trainer.log_every=10 trainer.device=cpu trainer.precision=fp32 checkpoint.every_steps=20)
train=(python -m torch_linguist.cli.train "${text[@]}" "${small[@]}")

# finished TABLE NUMBER: whether so many rows of the table of a sweep are finished.
finished() { [ "$(grep -c ',finished,' "$1")" = "$2" ]; }
state_is() { [ "$(squeue -h -j "$1" -o %T)" = "$2" ]; }
is_gone() { [ -z "$(squeue -h -j "$1" 2>/dev/null)" ]; }

check_sweep() {
    echo "== a sweep: tl-grid launcher=submitit"
    nice python -m torch_linguist.cli.grid "${text[@]}" model=ngram model.order=2,3 seed=1,2 name=sweep \
        launcher=submitit jobs=4 cores=1 "launcher_options={timeout_min:10}" >sweep.txt 2>&1 || true
    check "its four runs finish" finished outputs/sweep/grid.csv 4
}

check_array() {
    echo "== an array job: one training a seed"
    cat >array.sh <<END
#!/bin/bash
exec ${train[@]@Q} trainer.max_steps=50 seed=\$SLURM_ARRAY_TASK_ID name=seed-\$SLURM_ARRAY_TASK_ID
END
    sbatch --wait --array=1-3 --output=array-%a.txt array.sh >/dev/null || true
    for seed in 1 2 3; do check "seed $seed finishes" status_of outputs/seed-$seed finished; done
}

check_limit() {
    echo "== a time limit: SIGUSR1 20 seconds before, requeue, resume=auto"
    local steps=${LIMITED_STEPS:-6000} job
    cat >limited.sh <<END
#!/bin/bash
#SBATCH --time=${LIMIT_MINUTES:-1} --signal=B:USR1@20 --requeue --output=limited.txt --open-mode=append
${train[@]@Q} trainer.max_steps=$steps name=limited resume=auto &
trap 'kill -USR1 \$!; wait \$!; scontrol requeue \$SLURM_JOB_ID' USR1
wait \$!
END
    job=$(sbatch --parsable limited.sh)
    check "it is queued again and finishes" wait_for 1200 status_of outputs/limited finished
    echo "starts: $(grep -c '^corpus: ' limited.txt), resumed: $(grep -c '^resuming' limited.txt)"
    check "it was resumed" grep -q "^resuming" limited.txt
    scancel "$job" 2>/dev/null || true
    nice "${train[@]}" trainer.max_steps="$steps" name=unlimited >unlimited.txt 2>&1
    check "its losses are those of a run without a limit" same_losses outputs/unlimited outputs/limited
}

# cancel NAME OPTION...: cancels a training in the middle; it has KillWait=30 seconds to save and score.
cancel() {
    local name=$1 job
    shift
    job=$(sbatch --parsable --output="$name.txt" --wrap "exec ${train[*]@Q} trainer.max_steps=100000 name=$name")
    check "training begins" wait_for 300 rows_in "outputs/$name" 10
    scancel "$@" "$job"
    check "it saves, scores and ends" wait_for 60 status_of "outputs/$name" interrupted
    wait_for 60 is_gone "$job" || scancel "$job"
}

check_cancel() {
    echo "== scancel"
    cancel canceled
    echo "== scancel --signal=TERM --full"
    cancel signaled --signal=TERM --full
}

check_node() {
    echo "== a node fails"
    local job begin
    job=$(sbatch --parsable --requeue --nodelist=n2 --output=failed.txt --open-mode=append \
        --wrap "exec ${train[*]@Q} trainer.max_steps=1000 name=failed resume=auto")
    check "training begins" wait_for 300 rows_in outputs/failed 10
    fail_node n2
    begin=$SECONDS
    check "SLURM notices and queues the job again" wait_for 180 state_is "$job" PENDING
    echo "noticed after $((SECONDS - begin)) s"
    scontrol update JobId="$job" ReqNodeList=n1 || true
    check "it resumes on the other node and finishes" wait_for 600 status_of outputs/failed finished
    check "it was resumed" grep -q "^resuming" failed.txt
    nice "${train[@]}" trainer.max_steps=1000 name=unfailed >unfailed.txt 2>&1
    check "its losses are those of a run that did not fail" same_losses outputs/unfailed outputs/failed
}

for part in "${parts[@]}"; do "check_$part"; done
exit "$CHECKS_FAILED"
