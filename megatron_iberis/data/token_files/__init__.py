"""Token files: Megatron's .bin and .idx with a manifest; reading, inspecting, verifying, merging."""
