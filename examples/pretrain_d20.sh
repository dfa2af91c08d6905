#!/usr/bin/env bash
''':'
# Pretrains the English Saint Iberis (d20, 542 M parameters). This file is both bash and Python:
#   deepspeed examples/pretrain_d20.sh --train.steps 100      (deepspeed's own options come before the file)
#   bash examples/pretrain_d20.sh --train.steps 100           (the same, on a port that is free)
# --help lists every setting; megatron_iberis/config/recipes/d20.toml is the recipe.
. "$(dirname "$0")/_start"
'''
from megatron_iberis.stages.launch import launch

launch("pretrain", "d20")
