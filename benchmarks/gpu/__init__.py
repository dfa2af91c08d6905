"""`make check-gpu`: whether training on this machine's GPUs is right, and how fast it is. See docs/gpu.md."""
