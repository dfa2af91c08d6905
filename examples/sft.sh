#!/usr/bin/env bash
''':'
# Supervised finetuning: a model learns to answer, from what the assistant says in conversations. Both bash and Python:
#   deepspeed examples/sft.sh --run.start_from demo/mid      (deepspeed's own options come before the file)
#   bash examples/sft.sh --recipe sft_d20 --run.start_from runs/d20_mid (the same, on a port that is free)
# --recipe takes sft_demo (the default), sft_d12, sft_d20 or a .toml file; --help lists every setting.
. "$(dirname "$0")/_start"
'''
from megatron_iberis.stages.launch import launch

launch("finetune", "sft_demo")
