"""Continues prompts with an exported model, as anyone who has transformers can; megatron_iberis is not imported.

    python examples/exported.py FOLDER PROMPT [PROMPT ...]

FOLDER is what `iberis convert to-hf` wrote; trust_remote_code, since it holds the model's code (modeling_iberis.py).
"""

from __future__ import annotations

import sys

from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar


def main() -> None:
    folder, *prompts = sys.argv[1:]
    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)  # else it asks, for config.json
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        ids = model.generate(**inputs, max_new_tokens=48, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        print(f"{prompt}|{tokenizer.decode(ids, skip_special_tokens=True)}".replace("\n", " "))


if __name__ == "__main__":
    main()
