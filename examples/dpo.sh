#!/usr/bin/env bash
''':'
# Preference optimisation (DPO): a chat model learns which of two answers is preferred. This file is both bash and Python:
#   deepspeed examples/dpo.sh --recipe dpo_d20 --run.start_from runs/d20_sft --preference.data pairs.jsonl
#   bash examples/dpo.sh --run.start_from demo/sample/sft     (the demo's recipe, and the same on a port that is free)
# Recipes: dpo_d20, dpo_d12, dpo_demo (megatron_iberis/config/recipes). --help lists every setting.
. "$(dirname "$0")/_start"
'''
from megatron_iberis.stages.launch import launch

launch("preference", "dpo_demo")
