"""Which rows and documents to be trained on hold items of evaluation sets: runs of words in common, near copies."""
