"""Runs an exported model as somebody who has only transformers would; comparison.py starts it as its own process.

    python -c "<this file>" MODEL REQUEST ANSWER

REQUEST and ANSWER are safetensors files: ids and attention mask in; out the logits, of one pass and of two passes on
a cache, computed in each of the dtypes that REQUEST's metadata name. The texts there come back as ids.
"""

import json
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
folder, request, answer = sys.argv[1:]
asked = load_file(request)
ids, mask = asked["ids"], asked["mask"]
with safe_open(request, framework="pt") as file:
    texts, dtypes = (json.loads(file.metadata()[name]) for name in ("texts", "dtypes"))
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
told = {"ids": json.dumps([tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts])}
logits = {}
for name in dtypes:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=getattr(torch, name)).eval()
    with torch.no_grad():
        logits[f"{name}.whole"] = model(ids, attention_mask=mask).logits
        half = ids.shape[1] // 2
        first = model(ids[:, :half], attention_mask=mask[:, :half], use_cache=True)
        second = model(ids[:, half:], attention_mask=mask, past_key_values=first.past_key_values)
        logits[f"{name}.cached"] = torch.cat((first.logits, second.logits), dim=1)
save_file(logits, answer, metadata=told)
