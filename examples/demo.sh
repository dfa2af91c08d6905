#!/usr/bin/env bash
''':'
# Pretrains the demonstration model of `make demo`, on a CPU in minutes; its data are made by `make demo`. This file is both bash and Python:
#   deepspeed examples/pretrain_demo.sh --train.steps 100      (deepspeed's own options come before the file)
#   bash examples/pretrain_demo.sh --train.steps 100           (the same with deepspeed's defaults)
# --help lists every setting; megatron_iberis/config/recipes/demo.toml is the recipe.
PATH="$(dirname "$0")/../.venv/bin:$PATH" exec deepspeed "$0" "$@"
'''
from megatron_iberis.stages.launch import launch

launch("pretrain", "demo")
