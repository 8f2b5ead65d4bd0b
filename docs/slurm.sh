#!/usr/bin/env bash
# Trains under Slurm, on any number of GPUs and hosts, and is put back into the queue whenever it was stopped early.
#
#   sbatch docs/slurm.sh --config configs/celeba-64-young.yml --out runs/young
#
# The arguments are those of `civae train`. A job that reaches its time limit, or is preempted, saves and goes on later
# from where it stopped, to the same weights. So may one that is cancelled; to end it for good, this should do (not
# tried): scontrol update JobId=N Requeue=0 && scancel N
#
# Lines that want adapting: #SBATCH, and how civae is put on the PATH.

#SBATCH --job-name=civae
#SBATCH --nodes=1
# One process for each GPU. Not --gpus-per-task: every process must see all GPUs of its host, and takes its own.
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --time=08:00:00
# Two minutes before the limit this script, not the processes, gets USR1: time to save.
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail

if [ -r .venv/bin/activate ]; then
  source .venv/bin/activate
fi

# What torchrun would tell each process. torchrun itself has no place here: it turns the exit code 75, by which we know
# that a run was stopped and saved, into 1.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

# exec, so that srun's signals reach Python itself. In the background, because bash runs a trap only between commands.
# shellcheck disable=SC2016  # expanded by each process, not here
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
  exec civae train "$@"' civae "$@" &
step=$!

# srun passes USR1 on to all its processes; TERM, which preemption sends, would make it kill them. A wait that a signal
# interrupted did not see srun end, so it is repeated.
asked=0
interrupted=1
trap 'asked=1; interrupted=1; kill -USR1 "$step" 2>/dev/null || true' USR1 TERM
while [ "$interrupted" = 1 ]; do
  interrupted=0
  code=0
  wait "$step" || code=$?
done
trap '' USR1 TERM

# 75 is "stopped, after saving". Asked within the first seconds, before there is anything to save, Python just ends: 138.
case $code-$asked in
  75-* | 138-1)
    if scontrol requeue "$SLURM_JOB_ID"; then
      echo "stopped early: back in the queue" >&2
      exit 0
    fi
    ;;
esac
exit "$code"
