"""Raw text -> token files: finding inputs, reading documents, preprocessing in parallel, looking into the result."""
