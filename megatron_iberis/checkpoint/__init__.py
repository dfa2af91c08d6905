"""Checkpoints: full tensors by canonical name in safetensors, complete or not there at all, for any layout."""
