"""Full tensors and the pieces of them that ZeRO and tensor parallelism leave on each rank."""
