#!/usr/bin/env bash
''':'
# Pretrains the English Saint Iberis (d20, 542 M parameters). This file is both bash and Python:
#   deepspeed examples/pretrain_d20.sh --train.steps 100      (deepspeed's own options come before the file)
#   bash examples/pretrain_d20.sh --train.steps 100           (the same with deepspeed's defaults)
# --help lists every setting; megatron_iberis/config/recipes/d20.toml is the recipe.
PATH="$(dirname "$0")/../.venv/bin:$PATH"
command -v deepspeed >/dev/null || { echo "error: deepspeed is not installed: run make demo once, or pip install ." >&2; exit 2; }
exec deepspeed --log_level error "$0" "$@"
'''
from megatron_iberis.stages.launch import launch

launch("pretrain", "d20")
