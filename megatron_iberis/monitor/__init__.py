"""What a user sees of a run: console, log.jsonl and TensorBoard, told the same events."""
