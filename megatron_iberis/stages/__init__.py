"""The stages of a model's life: short programs that wire the parts."""
