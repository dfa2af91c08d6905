#!/usr/bin/env bash
''':'
# Pretrains the Japanese-English Saint Iberis (published as d12, 376 M parameters). This file is both bash and Python:
#   deepspeed examples/pretrain_d12.sh --train.steps 100      (deepspeed's own options come before the file)
#   bash examples/pretrain_d12.sh --train.steps 100           (the same, on a port that is free)
# --help lists every setting; megatron_iberis/config/recipes/d12.toml is the recipe.
. "$(dirname "$0")/_start"
'''
from megatron_iberis.stages.launch import launch

launch("pretrain", "d12")
