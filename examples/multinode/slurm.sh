#!/usr/bin/env bash
#SBATCH --job-name=iberis
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
# A SLURM job, submitted from the repository's root; sbatch's own options come before the file:
#   sbatch --time 12:00:00 examples/multinode/slurm.sh examples/pretrain_d20.sh --run.resume --parallel.tp 2
# One task a GPU and no launcher in between: SLURM's signals reach the ranks, and their exit code is the job's.
# --run.resume continues from the latest checkpoint and starts anew where there is none, so a requeued job needs no care.
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
PATH="$PWD/.venv/bin:$PATH"
MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000)) # two jobs on one node don't meet
export WORLD_SIZE="$SLURM_NTASKS" LOCAL_WORLD_SIZE="$SLURM_NTASKS_PER_NODE"
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # srun does not take it over from sbatch by itself
# Neighbouring ranks share a node (block), where tensor parallelism belongs; each sees all GPUs and takes its LOCAL_RANK.
# When one task fails, all are ended at once instead of waiting for it.
# shellcheck disable=SC2016  # the task's own shell expands these
exec srun --distribution=block --gpu-bind=none --kill-on-bad-exit=1 \
    bash -c 'RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID" exec python -u "$@"' task "$@"
