"""Work shared out among processes, results in order."""
