"""A trained model as a folder that transformers loads where megatron_iberis is not installed."""
