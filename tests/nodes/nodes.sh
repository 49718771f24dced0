#!/usr/bin/env bash
# A SLURM of three nodes and two login nodes on one machine, for tests: as root on Debian or Ubuntu.
#
#   tests/nodes/nodes.sh up             install what is missing, start everything; says why where it cannot
#   tests/nodes/nodes.sh cut_off NODE   its network is gone: it reads and writes nothing more, its locks stay
#   tests/nodes/nodes.sh kill NODE      all its processes are killed at once
#   tests/nodes/nodes.sh release NODE   the file server gives up the locks that it had
#   tests/nodes/nodes.sh start NODE     it comes up again
#   tests/nodes/nodes.sh in NODE CMD..  run a command there
#   tests/nodes/nodes.sh down           stop what was started
#
# Each of n1, n2, n3, login1, login2 has its own host name, processes and mounts (namespaces). $lab/shared is a
# simulation of a network file system (nfs_like.c) over $lab/server, mounted by each; $lab/cache is empty on n3.
# A node has one CPU. State lies in $QUANTBENCH_NODES (default: /tmp/quantbench-nodes); ports from 27817 on.
set -euo pipefail

lab=${QUANTBENCH_NODES:-/tmp/quantbench-nodes}
here=$(cd "$(dirname "$0")" && pwd)
port=27817
export SLURM_CONF=$lab/slurm.conf
remember=${QUANTBENCH_NODES_REMEMBER:-10} # seconds for which a machine believes what it knows of names
. "$here/../slurm/common.sh"

write_config() {
  # SlurmdTimeout: after so long a node that does not answer is down, and its jobs are queued again.
  # cred_expire: a requeued job waits that long before it starts again (120 s by default).
  cat >"$SLURM_CONF" <<EOF
ClusterName=nodes
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmctldPidFile=$lab/slurmctld.pid
SlurmdPidFile=$lab/slurmd.%n.pid
SlurmctldLogFile=$lab/slurmctld.log
SlurmdLogFile=$lab/slurmd.%n.log
StateSaveLocation=$lab/state
SlurmdSpoolDir=$lab/spool.%n
SlurmdParameters=config_overrides
SlurmdTimeout=10
InactiveLimit=0
MessageTimeout=30
KillWait=3
MinJobAge=3600
JobRequeue=1
MaxArraySize=1001
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName=n1 NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1 State=UNKNOWN
NodeName=n2 NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1 State=UNKNOWN
NodeName=n3 NodeAddr=127.0.0.1 Port=$((port + 3)) CPUs=1 State=UNKNOWN
PartitionName=main Nodes=n1,n2,n3 Default=YES MaxTime=INFINITE State=UP
EOF
}

start() { # start MACHINE: its file system outside, all else inside its own namespaces, ended with their first process
  local name=$1 inside
  case $name in
    login*) inside='sleep infinity & wait' ;;
    *) inside="slurmd -D -N $name & wait" ;;
  esac
  export lab name inside here remember
  setsid unshare --mount --uts bash -c '
    hostname "$name"
    "$lab/nfs_like" --backing="$lab/server" --remember="$remember" -f "$lab/shared" &
    echo $! >"$lab/$name.files.pid"
    until mountpoint -q "$lab/shared"; do sleep 0.1; done
    [ "$name" != n3 ] || mount -t tmpfs empty "$lab/cache"
    echo $$ >"$lab/$name.pid"
    exec unshare --pid --fork --kill-child --mount-proc bash -c "$inside"
  ' >"$lab/$name.out" 2>&1 </dev/null &
  until_true 10 sh -c "pgrep -P \$(cat $lab/$name.pid)" || { cat "$lab/$name.out" >&2; die "$name does not start"; }
}

first() { pgrep -o -P "$(cat "$lab/$1.pid")"; } # the first process of a machine
end() { # end MACHINE WHAT: kill one of its processes if it lives
  local file=$lab/$1.$2
  if [ -s "$file" ]; then kill -9 "$(cat "$file")" 2>/dev/null || true; rm -f "$file"; fi
}

kill_machine() { end "$1" pid; }
cut_off() { kill -USR1 "$(cat "$lab/$1.files.pid")"; }
release() { end "$1" files.pid; }
in_machine() { local name=$1; shift; exec nsenter --target "$(first "$name")" --mount --uts --pid --wd="$PWD" -- "$@"; }

up() {
  [ "$(id -u)" = 0 ] || die "needs root"
  [ -c /dev/fuse ] || die "needs FUSE (/dev/fuse)"
  unshare --mount --uts --pid --fork true || die "needs namespaces of its own"
  install_packages slurmctld slurmd slurm-client munge fuse3 libfuse3-dev gcc libc6-dev pkg-config
  start_munge
  down
  mkdir -p "$lab"/{state,server,shared,cache}
  # shellcheck disable=SC2046
  gcc -O1 -Wall "$here/nfs_like.c" -o "$lab/nfs_like" $(pkg-config --cflags --libs fuse3) || die "cannot compile"
  gcc -O1 -Wall -shared -fPIC "$here/clock_off.c" -o "$lab/clock_off.so" || die "cannot compile"
  write_config
  slurmctld -c
  until_true 20 sh -c 'scontrol ping | grep -q UP' || { tail -5 "$lab/slurmctld.log" >&2; die "slurmctld does not answer"; }
  local name
  for name in n1 n2 n3 login1 login2; do start $name; done
  until_true 30 sh -c '[ "$(sinfo -h -N -t idle -o %N | wc -l)" = 3 ]' || { sinfo >&2; tail -3 "$lab"/slurmd.*.log >&2; die "not all nodes come up"; }
  srun -N3 -n3 -t1 --immediate=20 true || die "a first job does not run"
}

down() {
  local name
  for name in n1 n2 n3 login1 login2; do kill_machine $name; release $name; done
  if running slurmctld; then
    kill "$(cat "$lab/slurmctld.pid")"
    until_true 10 sh -c "! kill -0 $(cat "$lab/slurmctld.pid")" || kill -9 "$(cat "$lab/slurmctld.pid")"
  fi
  rm -rf "$lab"
}

case ${1:-} in
  up | down | start | cut_off | release) "$@" ;;
  kill) kill_machine "$2" ;;
  in) shift; in_machine "$@" ;;
  *) die "usage: $0 up|down|start|cut_off|kill|release|in" ;;
esac
