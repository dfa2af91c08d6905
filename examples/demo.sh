#!/usr/bin/env bash
''':'
# Pretrains the model of `make demo`, on a CPU in minutes; its token files are made by `make demo`. Both bash and Python:
#   deepspeed examples/demo.sh --train.steps 100      (deepspeed's own options come before the file)
#   bash examples/demo.sh --train.steps 100           (the same with deepspeed's defaults)
# --help lists every setting; megatron_iberis/config/recipes/demo.toml is the recipe.
PATH="$(dirname "$0")/../.venv/bin:$PATH"
command -v deepspeed >/dev/null || { echo "error: deepspeed is not installed: run make demo once, or pip install ." >&2; exit 2; }
exec deepspeed --log_level error "$0" "$@"
'''
from megatron_iberis.stages.launch import launch

launch("pretrain", "demo")
