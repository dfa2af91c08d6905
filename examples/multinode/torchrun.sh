#!/usr/bin/env bash
# Starts this node's ranks with torchrun. The same on every node but for NODE_RANK, from 0:
#   NODES=2 NODE_RANK=0 MASTER_ADDR=node-0 examples/multinode/torchrun.sh examples/pretrain_d20.sh --parallel.tp 2
#   NODES=2 NODE_RANK=1 MASTER_ADDR=node-0 examples/multinode/torchrun.sh examples/pretrain_d20.sh --parallel.tp 2
# RANKS is the number of ranks on this node; without it, one a GPU.
set -euo pipefail
PATH="$(dirname "$0")/../../.venv/bin:$PATH"
exec torchrun --nnodes "${NODES:-1}" --node_rank "${NODE_RANK:-0}" --nproc_per_node "${RANKS:-gpu}" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${MASTER_PORT:-29500}" "$@"
