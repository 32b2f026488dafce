#!/usr/bin/env bash
# The papers' questions on your own text, end to end: T5 and an encoder from scratch on clinical, on general, and on
# general then clinical text; three budgets, two sizes; fine-tuned, prompted, compared. Run again, it goes on.
#   bash scripts/study.sh [CONFIG.yaml] [--clinical PLACE] [--general PLACE] [--tasks FOLDER] [--run_dir FOLDER] [--dry-run]
# PLACE: a folder of note files with a `text` column, or a YAML file of `sources` as for medjax.prepare.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bash "$root/scripts/setup.sh"
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$root/.cache/jax}
exec "$root/.venv/bin/python" "$root/scripts/study.py" "$@"
