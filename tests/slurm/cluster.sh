#!/usr/bin/env bash
# A real SLURM of one node, for tests: munged, slurmctld and slurmd without systemd, as root on Debian or Ubuntu.
#
#   tests/slurm/cluster.sh up      install the packages if they are missing, start; says why where it cannot
#   tests/slurm/cluster.sh down    stop what was started
#
# The node advertises 8 CPUs, 2 GPUs and 1 "slot" whatever the machine has. Partitions: main; low, whose jobs are
# requeued for those of high that want the same slot. No accounting, so no sacct. State lies in $QUANTBENCH_SLURM (default: /tmp/quantbench-slurm).
set -euo pipefail

lab=${QUANTBENCH_SLURM:-/tmp/quantbench-slurm}
host=$(hostname -s)
conf=/etc/slurm/slurm.conf
mark="# written by quantbench's tests"

. "$(dirname "$0")/common.sh"

write_config() {
  if [ -e $conf ] && ! head -1 $conf | grep -qF "$mark"; then die "$conf exists and is not ours: this machine has a SLURM"; fi
  mkdir -p /etc/slurm "$lab"/{state,spool,dev}
  local memory i
  memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
  for i in 0 1; do [ -e "$lab/dev/gpu$i" ] || mknod "$lab/dev/gpu$i" c 1 3; done # as /dev/null
  printf '%s\nNodeName=%s Name=gpu File=%s\nNodeName=%s Name=slot Count=1\n' \
    "$mark" "$host" "$lab/dev/gpu[0-1]" "$host" >/etc/slurm/gres.conf
  # cred_expire: a requeued job waits that long before it starts again (120 s by default).
  # MessageTimeout: the machine may be busy with the jobs. CR_CPU: memory is not what limits the number of jobs.
  cat >$conf <<EOF
$mark
ClusterName=quantbench
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmctldPidFile=$lab/slurmctld.pid
SlurmdPidFile=$lab/slurmd.pid
SlurmctldLogFile=$lab/slurmctld.log
SlurmdLogFile=$lab/slurmd.log
StateSaveLocation=$lab/state
SlurmdSpoolDir=$lab/spool
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
InactiveLimit=0
MessageTimeout=60
KillWait=3
MinJobAge=3600
JobRequeue=1
MaxArraySize=1001
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu,slot
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=$memory Gres=gpu:2,slot:1 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=$host MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=$host MaxTime=INFINITE State=UP PriorityTier=100 PreemptMode=OFF
EOF
}

up() {
  [ "$(id -u)" = 0 ] || die "needs root"
  install_packages slurmctld slurmd slurm-client munge
  start_munge
  if ! running slurmctld || ! running slurmd; then
    write_config
    running slurmctld || { rm -rf "$lab"/state/*; slurmctld -c; }
    until_true 20 sh -c 'scontrol ping | grep -q UP' || { tail -5 "$lab/slurmctld.log" >&2; die "slurmctld does not answer"; }
    running slurmd || slurmd -N "$host"
  fi
  ready() { sinfo -h -n "$host" -o %T | grep -qE '^(idle|mixed|allocated)$'; }
  until_true 15 ready || { scontrol update nodename="$host" state=resume || true; }
  until_true 20 ready || { tail -5 "$lab/slurmd.log" >&2; die "the node does not come up"; }
  srun -n1 -t1 --immediate=20 true || die "a first job does not run"
  sinfo -h -n "$host" -o 'SLURM is up: %N, %c CPUs, %G' | head -1
}

down() {
  local name pid
  if running slurmctld; then scancel --user="$(id -un)" || true; until_true 15 sh -c '[ -z "$(squeue -h)" ]' || true; fi
  for name in slurmd slurmctld; do
    running $name || continue
    pid=$(cat "$lab/$name.pid")
    kill "$pid"
    until_true 10 sh -c "! kill -0 $pid" || kill -9 "$pid"
  done
  if [ -e $conf ] && head -1 $conf | grep -qF "$mark"; then rm -f $conf /etc/slurm/gres.conf; fi
}

case ${1:-} in up | down) "$1" ;; *) die "usage: $0 up|down" ;; esac
