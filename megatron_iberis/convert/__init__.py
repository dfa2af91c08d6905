"""Saint Iberis to and from other programs' forms: Hugging Face's (both ways) and nanochat's."""
