#!/usr/bin/env bash
''':'
# Mid-training: a pretrained model learns what conversations look like, and what they know. Both bash and Python:
#   deepspeed examples/midtrain.sh --run.start_from demo/sample/run      (deepspeed's own options come before the file)
#   bash examples/midtrain.sh --recipe mid_d20 --run.start_from runs/d20 (the same, on a port that is free)
# --recipe takes mid_demo (the default), mid_d12, mid_d20 or a .toml file; --help lists every setting.
. "$(dirname "$0")/_start"
'''
from megatron_iberis.stages.launch import launch

launch("finetune", "mid_demo")
