"""Imports point one way, and nothing imports JAX (or what is slower) before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "medjax"
HEAVY = {"jax", "jaxlib", "torch", "tensorflow", "transformers"}
COMMANDS = sorted(
    path.stem for path in PACKAGE.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")
)

# Prints, for each module, which of the given packages its import brought in.
IMPORT_ONE_BY_ONE = """
import importlib, sys
modules, packages = (argument.split(",") for argument in sys.argv[1:])
for module in modules:
    importlib.import_module(module)
    found = [p for p in packages if p in sys.modules]
    if found:
        sys.exit(f"{module} imports {', '.join(found)}")
"""

# Runs commands with --help one after the other in one process.
HELP = """
import contextlib, io, runpy, sys
for command in sys.argv[1].split(","):
    sys.argv = [f"{command}.py", "--help"]
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        runpy.run_module(f"medjax.{command}", run_name="__main__", alter_sys=True)
    if "CONFIG.yaml" not in text.getvalue():
        sys.exit(f"{command} --help prints no usage")
    if "jax" in sys.modules:
        sys.exit(f"{command} --help imports JAX")
"""


def modules_in(folder):
    """Dotted names of all modules of medjax/<folder>."""
    return [f"medjax.{folder}.{p.stem}" for p in sorted((PACKAGE / folder).glob("*.py"))]


def run_python(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.strip()


def test_what_needs_no_jax_imports_none():
    configs = [f"medjax.{p.parent.name}.config" for p in PACKAGE.glob("*/config.py")]
    folders = [
        name for name in ("data", "tasks", "scoring", "comparison") if (PACKAGE / name).is_dir()
    ]
    modules = ["medjax", "medjax.config", *configs, *(m for f in folders for m in modules_in(f))]
    modules += [f"medjax.{command}" for command in COMMANDS]
    run_python(IMPORT_ONE_BY_ONE, ",".join(modules), ",".join(HEAVY))


def test_jax_code_imports_neither_tensorflow_nor_torch():
    folders = ("models", "objectives", "training", "hub")
    modules = [module for folder in folders for module in modules_in(folder)]
    run_python(IMPORT_ONE_BY_ONE, ",".join(modules), "torch,tensorflow")


@pytest.mark.parametrize(
    ("folder", "above"),
    [
        ("models", {"objectives", "training", "decoding", "data", "hub"}),
        ("objectives", {"training", "decoding", "hub"}),
        ("hub", {"objectives", "training", "decoding"}),
        ("data", {"models", "objectives", "training", "decoding", "hub"}),
    ],
)
def test_a_folder_imports_only_what_lies_below_it(folder, above):
    """Every import statement counts, those inside functions included."""
    for path in (PACKAGE / folder).glob("*.py"):
        for name in imported_names(path):
            parts = name.split(".")
            assert parts[0] != "medjax" or not above & set(parts[1:2]), f"{path} imports {name}"
            is_command = parts[0] == "medjax" and parts[1:2] and parts[1] in COMMANDS
            assert not is_command, f"{path} imports the command {name}"


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_help_answers_without_jax():
    assert COMMANDS
    run_python(HELP, ",".join(COMMANDS))
