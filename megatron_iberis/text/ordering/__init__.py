"""Documents put in another order or left out, by sorting on disk: duplicates, shuffle."""
