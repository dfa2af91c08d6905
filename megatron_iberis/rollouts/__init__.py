"""What the model that is being trained answers to prompts, what that is worth, and the batches made of it."""
