"""How good a model is: bits per byte, and what it is to be compared with."""
