#!/usr/bin/env bash
# From raw text to a scored model that one can talk to, one stage after the other. Given again, it goes on where it stopped.
#   bash examples/speedrun.sh demo           (minutes on a laptop's CPU)
#   bash examples/speedrun.sh d20            (the published English model: hours on 8 H100s)
#   bash examples/speedrun.sh d12 --dry-run  (prints every command that it would run)
# --help tells the rest; docs/pipeline.md shows the way. Paths are taken from the project's folder.
set -e
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
command -v iberis >/dev/null || make .venv/installed
python="$(dirname "$(command -v iberis)")/python"
[ -x "$python" ] || python=python3 # installed for the user alone
exec "$python" -m examples.speedrun "$@"
