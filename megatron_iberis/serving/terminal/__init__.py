"""`iberis chat`: a model to talk to in the terminal."""
