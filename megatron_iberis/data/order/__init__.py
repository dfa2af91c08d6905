"""Which tokens of which file make up sample number s."""
