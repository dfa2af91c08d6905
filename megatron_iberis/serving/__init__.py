"""A model to talk to: in the terminal."""
