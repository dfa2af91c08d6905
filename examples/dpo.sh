#!/usr/bin/env bash
''':'
# Preference optimisation (DPO): a chat model learns which of two answers is preferred. This file is both bash and Python:
#   deepspeed examples/dpo.sh --run.start_from runs/d20_sft --preference.data pairs.jsonl
#   bash examples/dpo.sh --recipe dpo_d12 --run.start_from runs/d12_sft --preference.data pairs.jsonl
# Recipes: dpo_d20, dpo_d12, dpo_demo (megatron_iberis/config/recipes). --help lists every setting.
. "$(dirname "$0")/_start"
'''
from megatron_iberis.stages.launch import launch

launch("preference", "dpo_d20")
