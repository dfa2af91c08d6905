#!/usr/bin/env bash
#SBATCH --job-name=iberis-text
#SBATCH --array=1-8
#SBATCH --cpus-per-task=16
#SBATCH --requeue
#SBATCH --open-mode=append
# Text -> token files on several machines: each task of the array makes one shard, and a job behind it merges them.
# From the repository's root, with the arguments of data_tools/preprocess.py:
#   export SHARDS=8
#   job=$(sbatch --parsable --array=1-8 examples/multinode/preprocess_slurm.sh --input corpus --tokenizer tokenizer --output-prefix tokens/corpus --dedup exact --shuffle 1)
#   sbatch --dependency=afterok:$job --wrap '.venv/bin/python data_tools/merge.py --shards tokens/corpus'
# A task that failed is submitted alone, --array=3 with the same SHARDS: it resumes, or finds that it was done.
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
exec .venv/bin/python data_tools/preprocess.py "$@" --resume \
    --shard "$SLURM_ARRAY_TASK_ID/${SHARDS:-$SLURM_ARRAY_TASK_COUNT}" --workers "${SLURM_CPUS_PER_TASK:-1}"
