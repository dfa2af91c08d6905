#!/usr/bin/env bash
# Starts this node's ranks with DeepSpeed's launcher, without ssh. The same on every node but for NODE_RANK, which is
# the node's line in the hostfile, from 0:
#   NODE_RANK=0 examples/multinode/no_ssh.sh examples/pretrain_d20.sh --parallel.tp 2
#   NODE_RANK=1 examples/multinode/no_ssh.sh examples/pretrain_d20.sh --parallel.tp 2
# HOSTFILE is another hostfile than the one beside this file, MASTER_ADDR another address than its first line's.
set -euo pipefail
here="$(dirname "$0")"
PATH="$here/../../.venv/bin:$PATH"
hostfile="${HOSTFILE:-$here/hostfile}"
first="$(awk '/slots=/ && !/^#/ { print $1; exit }' "$hostfile")"
exec deepspeed --log_level error --hostfile "$hostfile" --no_ssh --node_rank "${NODE_RANK:?give the line, from 0}" \
    --master_addr "${MASTER_ADDR:-$first}" --master_port "${MASTER_PORT:-29500}" "$@"
