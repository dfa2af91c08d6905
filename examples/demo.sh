#!/usr/bin/env bash
''':'
# Pretrains the model of `make demo`, on a CPU in minutes; its token files are made by `make demo`. Both bash and Python:
#   deepspeed examples/demo.sh --train.steps 100      (deepspeed's own options come before the file)
#   bash examples/demo.sh --train.steps 100           (the same, on a port that is free)
# --help lists every setting; megatron_iberis/config/recipes/demo.toml is the recipe.
. "$(dirname "$0")/_start"
'''
from megatron_iberis.stages.launch import launch

launch("pretrain", "demo")
