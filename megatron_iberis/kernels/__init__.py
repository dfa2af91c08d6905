"""The operations worth a kernel, one folder each: a short reference, and the fast version tested against it."""
