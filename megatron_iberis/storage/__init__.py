"""Writing files carefully: whole or not at all, on the disk, one writer at a time."""
