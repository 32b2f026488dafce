#!/usr/bin/env bash
# Makes .venv with the pinned packages of requirements.lock; does nothing when all is in place.
#   bash scripts/setup.sh            the newest Python from 3.11 up, on the path or a pyenv version
#   PYTHON=/path/to/python3.11 bash scripts/setup.sh
#   EXTRAS=cuda bash scripts/setup.sh    also installs an extra of pyproject.toml (cuda, tpu, torch), unpinned
# The lock file is made by: uv pip compile --universal --python-version 3.11 --extra test \
#   --generate-hashes --no-header --no-annotate pyproject.toml -o requirements.lock
set -euo pipefail
cd "$(dirname "$0")/.."

is_supported() { "$1" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
  local minor candidate
  for minor in 13 12 11; do
    for candidate in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python; do
      if candidate=$(command -v "$candidate") && is_supported "$candidate"; then echo "$candidate"; return; fi
    done
  done
  if is_supported python3; then command -v python3; return; fi
  echo "setup.sh: found no Python 3.11, 3.12 or 3.13 on the path or under pyenv; install one, or name it: PYTHON=/path/to/python bash scripts/setup.sh" >&2
  return 1
}

# An existing environment keeps its Python unless another one is asked for.
if [ -n "${PYTHON:-}" ]; then
  is_supported "$PYTHON" || { echo "setup.sh: PYTHON=$PYTHON is not a Python from 3.11 to 3.13" >&2; exit 1; }
  python=$PYTHON
elif [ -x .venv/bin/python ] && is_supported .venv/bin/python; then
  python=.venv/bin/python
else
  python=$(find_python)
fi
version=$("$python" -c 'import sys; print(sys.version.split()[0])')
wanted="$version ${EXTRAS:-} $(cat requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1) $PWD"
if [ "$(cat .venv/.complete 2>/dev/null)" = "$wanted" ]; then exit 0; fi

echo "setup.sh: installing into .venv with Python $version"
if [ "$(.venv/bin/python -c 'import sys; print(sys.version.split()[0])' 2>/dev/null)" != "$version" ]; then
  rm -rf .venv
  "$python" -m venv .venv
fi
.venv/bin/python -m pip install --quiet --require-hashes -r requirements.lock
.venv/bin/python -m pip install --quiet --no-deps --editable .
if [ -n "${EXTRAS:-}" ]; then .venv/bin/python -m pip install --quiet --editable ".[$EXTRAS]"; fi
echo "$wanted" > .venv/.complete
