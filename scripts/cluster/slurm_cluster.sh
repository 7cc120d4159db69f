# A SLURM cluster on one machine: a controller, an accounting daemon and two nodes. Sourced by slurm.sh; needs root.
#
#   start_cluster FOLDER    starts everything, with files, logs and sockets below FOLDER
#   stop_cluster            ends it
#   start_node n1           starts the daemon of a node
#   fail_node n2            ends it with its jobs, as a power failure does
#
# Debian: apt-get install slurm-wlm slurmdbd munge mariadb-server

start_cluster() {
    cluster=$1
    local name
    mkdir -p "$cluster"/{state,log,mariadb,n1,n2}
    dd if=/dev/urandom of="$cluster/munge.key" bs=64 count=1 status=none
    chmod 400 "$cluster/munge.key"
    chmod 755 "$cluster"
    munged --force --key-file="$cluster/munge.key" --socket="$cluster/munge.socket" --pid-file="$cluster/munged.pid" \
        --log-file="$cluster/log/munged" --seed-file="$cluster/munge.seed"
    mariadb-install-db --datadir="$cluster/mariadb" --auth-root-authentication-method=normal --user=root >/dev/null 2>&1
    mariadbd --no-defaults --user=root --datadir="$cluster/mariadb" --socket="$cluster/mariadb.socket" --port=33306 \
        --bind-address=127.0.0.1 --pid-file="$cluster/mariadb.pid" 2>"$cluster/log/mariadb" &
    wait_for 60 mariadb --no-defaults --socket="$cluster/mariadb.socket" --user=root -e \
        "create user if not exists slurm@'127.0.0.1'; grant all on slurm.* to slurm@'127.0.0.1'"
    cat >"$cluster/slurmdbd.conf" <<END
DbdHost=$(hostname)
DbdAddr=127.0.0.1
DbdPort=17010
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$cluster/munge.socket
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=33306
StorageUser=slurm
StorageLoc=slurm
LogFile=$cluster/log/slurmdbd
PidFile=$cluster/slurmdbd.pid
END
    chmod 600 "$cluster/slurmdbd.conf"
    cat >"$cluster/slurm.conf" <<END
ClusterName=one-machine
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=17000
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$cluster/munge.socket
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=17010
AccountingStoragePass=$cluster/munge.socket
JobAcctGatherType=jobacct_gather/linux
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/%n
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/%n.pid
SlurmctldLogFile=$cluster/log/slurmctld
SlurmdLogFile=$cluster/log/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdTimeout=20
KillWait=30
JobRequeue=1
NodeName=n1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=17001 CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=17002 CPUs=2 RealMemory=4000
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
END
    export SLURM_CONF=$cluster/slurm.conf
    slurmdbd
    wait_for 30 grep -q "started" "$cluster/log/slurmdbd" || true
    sleep 2
    slurmctld
    wait_for 30 scontrol ping
    for name in n1 n2; do start_node $name; done
    wait_for 60 both_nodes_idle
}

both_nodes_idle() { [ "$(sinfo -h -N -o %T | grep -c idle)" = 2 ]; }

start_node() { slurmd -N "$1"; }

fail_node() {
    # Its daemon first, then those of the job steps, so that nobody learns how its jobs ended.
    kill -KILL "$(cat "$cluster/$1.pid")"
    local jobs job steps=""
    jobs=$({ grep -lsxz "SLURMD_NODENAME=$1" /proc/[0-9]*/environ || true; } | cut -d / -f 3)
    for job in $jobs; do steps+=" $(ps -o ppid= -p "$job" || true)"; done
    for job in $steps; do
        if [ "$(cat "/proc/$job/comm" 2>/dev/null)" = slurmstepd ]; then kill -KILL "$job"; fi
    done
    # shellcheck disable=SC2086
    kill -KILL $jobs 2>/dev/null || true
}

stop_cluster() {
    [ -n "${cluster:-}" ] || return 0
    scancel --state=RUNNING,PENDING 2>/dev/null || true
    sleep 1
    for file in n1 n2 slurmctld slurmdbd mariadb munged; do
        if [ -f "$cluster/$file.pid" ]; then kill "$(cat "$cluster/$file.pid")" 2>/dev/null || true; fi
    done
}
