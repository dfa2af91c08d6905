"""One command from raw text to a scored model: a plan of stages (plans/*.toml), run one after the other."""
