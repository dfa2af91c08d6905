#!/usr/bin/env bash
''':'
# Reinforcement learning: a chat model learns from its own answers, which are marked. This file is both bash and Python:
#   deepspeed examples/rl.sh --recipe rl_d20 --run.start_from runs/d20_sft
#   bash examples/rl.sh --run.start_from demo/sample/sft     (the demo's recipe, and the same on a port that is free)
# Recipes: rl_d20, rl_d12, rl_demo (megatron_iberis/config/recipes). --help lists every setting.
. "$(dirname "$0")/_start"
'''
from megatron_iberis.stages.launch import launch

launch("reinforce", "rl_demo")
