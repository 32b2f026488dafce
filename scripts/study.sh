#!/usr/bin/env bash
# The papers' questions on your own text, end to end: T5 and an encoder from scratch on clinical, on general, and on
# general then clinical text; three budgets, two sizes; fine-tuned, prompted, compared. Run again, it goes on.
#   bash scripts/study.sh [CONFIG.yaml] [--clinical PLACE] [--general PLACE] [--tasks FOLDER] [--dry-run]
# PLACE: a folder of note files with a `text` column, or a YAML file of `sources` as for medjax.prepare.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/.cache/jax}
exec .venv/bin/python scripts/study.py "$@"
