#!/usr/bin/env bash
# One task of lockstep.sbatch: a worker, started anew a few times when it fails. The arguments: the checkout, then those of
# `lockstep worker`. With --gpus-per-task=1 Slurm leaves each task its own GPU (CUDA_VISIBLE_DEVICES).

set -uo pipefail

home=$1
shift
tries=4

export LOCAL_RANK=$SLURM_LOCALID
# "4(x2)" is four tasks on each of two nodes.
export LOCAL_WORLD_SIZE=${SLURM_TASKS_PER_NODE%%[(,]*}

# A preempted job's tasks are told to end together with its coordinator, whose checkpoint needs them: this shell waits for the worker.
is_told=0
trap 'is_told=1' TERM

for ((try = 1; ; try++)); do
  node "$home/deploy/lockstep.mjs" worker --term-grace 25 "$@"
  code=$?
  # 0 and 130: the run is done, or interrupted. 2: the same again would be refused again.
  case $code in 0 | 2 | 130) exit "$code" ;; esac
  if [ "$try" -ge "$tries" ] || [ "$is_told" -eq 1 ]; then exit "$code"; fi
  sleep $((2 * try))
done
