"""The DeepSpeed engine, the optimizer, the schedules, the loop, and what a user sees of them."""
