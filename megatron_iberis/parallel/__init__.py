"""Process groups, and what megatron-core needs to run where there is no GPU."""
