"""Files -> documents: finding inputs, decompressing, parsing; what can't be used is told."""
