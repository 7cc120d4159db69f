#!/usr/bin/env bash
# A sweep on a Ray cluster of two hosts, one of which loses its power in the middle.
#
#   sudo scripts/cluster/ray.sh [FOLDER]
#
# The hosts are network namespaces of this machine (iproute2; Linux) with a folder in common. Takes about five minutes.
set -euo pipefail
source "$(dirname "$0")/hosts.sh"
source "$(dirname "$0")/checks.sh"

folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
cd "$folder"
write_text text.txt
trap remove_hosts EXIT
make_hosts
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled RAY_health_check_period_ms=2000 RAY_health_check_failure_threshold=3

on_host a ray start --head --node-ip-address=10.77.0.1 --port=6379 --num-cpus=1 --include-dashboard=false \
    --object-store-memory=100000000 --temp-dir="/tmp/tl-ray-head" >head.txt 2>&1
on_host b ray start --address=10.77.0.1:6379 --node-ip-address=10.77.0.2 --num-cpus=1 \
    --object-store-memory=100000000 >worker.txt 2>&1

sweep=(python -m torch_linguist.cli.grid data=text data.path=text.txt model=lstm model.embedding_dim=16
    model.hidden_size=16 model.output=full "stages=[fit]" optim.lr=0.01 optim.weight_decay=0 trainer.batch_size=8
    trainer.sequence_length=16 trainer.max_steps=600 trainer.eval_every=500 trainer.device=cpu seed=1,2,3 name=sweep
    launcher=ray jobs=2 cores=1 'launcher_options={address:"10.77.0.1:6379"}')
count() { grep -c ",$1," outputs/sweep/grid.csv || true; }

on_host a nice "${sweep[@]}" >sweep.txt 2>&1 & sweeping=$!
check "two runs begin" wait_for 180 sh -c "ls outputs/sweep/001/metrics.csv outputs/sweep/002/metrics.csv"
power_off b
begin=$SECONDS
wait "$sweeping" && code=0 || code=$?
echo "the sweep ended with $code after $((SECONDS - begin)) s: $(count finished) finished, $(count failed) failed"
grep -o "its worker ended[^\"]*" outputs/sweep/grid.csv | head -n 1 | cut -c 1-200 || true
check "the runs of the other host are finished" test "$(count finished)" -ge 1
check "the lost run has a row that says so" test "$(count failed)" = 1
on_host a nice "${sweep[@]}" retry_failed=true >again.txt 2>&1 || true
check "started again with retry_failed=true, the sweep is complete" test "$(count finished)" = 3
exit "$CHECKS_FAILED"
