"""Every file in configs/ is valid for its command, says only what differs, and fits together."""

import copy
import importlib
import sys
from pathlib import Path

import pytest
import yaml

from medjax.comparison.config import CompareConfig
from medjax.config import Schema, UserError, load
from medjax.data.config import PrepareConfig, SourceConfig, TokenizerConfig
from medjax.finetune import FinetuneConfig
from medjax.models.config import ModelConfig, T5Config
from medjax.pretrain import PretrainConfig
from medjax.prompt import PromptConfig
from medjax.tasks.config import TaskConfig
from medjax.training.flops import train_flops
from medjax.training.schedule import build_schedule

CONFIGS = Path(__file__).parent.parent / "configs"
sys.path.insert(0, str(CONFIGS.parent / "scripts"))  # the study's schema is beside its script


class ModelFile(Schema):
    """A file of configs/model: the part that recipes take as their base."""

    model: ModelConfig
    """The model."""


class SourcesFile(Schema):
    """A file of configs/sources: the part that `prepare` and `train_tokenizer` take as base."""

    sources: list[SourceConfig]
    """The notes."""


class TaskFile(Schema):
    """A file of configs/task: the part that `finetune` and `prompt` take as base."""

    task: TaskConfig
    """The task."""


COMMANDS = {
    "compare": CompareConfig,
    "study": importlib.import_module("study_config").StudyConfig,
    "task": TaskFile,
    "model": ModelFile,
    "sources": SourcesFile,
    "pretrain": PretrainConfig,
    "prepare": PrepareConfig,
    "tokenizer": TokenizerConfig,
    "finetune": FinetuneConfig,
    "prompt": PromptConfig,
}
FILES = sorted(CONFIGS.rglob("*.yaml"))
RECIPES = [path for path in FILES if path.parent.name == "pretrain"]


def _name(path):
    return str(path.relative_to(CONFIGS).with_suffix(""))


def _schema(path):
    return COMMANDS[path.relative_to(CONFIGS).parts[0]]


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_file_is_valid_and_minimal(path, tmp_path):
    """Leaving out any value must change the outcome, or fail."""
    resolved = load(_schema(path), [path])
    written = yaml.safe_load(path.read_text())
    bases = written.pop("base", [])
    bases = [str(path.parent / base) for base in ([bases] if isinstance(bases, str) else bases)]
    for place in _leaves(written):
        less = copy.deepcopy(written)
        _remove(less, place)
        shorter = tmp_path / path.name
        shorter.write_text(yaml.safe_dump({"base": bases, **less}))
        try:
            outcome = load(_schema(path), [shorter])
        except UserError:
            continue
        assert outcome != resolved, f"{'.'.join(place)} is the default or stands in the base"


def _leaves(values, place=()):
    if not isinstance(values, dict):
        return [place]
    return [leaf for name, value in values.items() for leaf in _leaves(value, (*place, name))]


def _remove(values, place):
    for name in place[:-1]:
        values = values[name]
    del values[place[-1]]


@pytest.mark.parametrize("path", RECIPES, ids=_name)
def test_a_recipe_fits_together(path):
    config = load(PretrainConfig, [path])
    build_schedule(config.schedule, config.loop.steps)
    assert config.loop.batch_size % config.loop.accumulation == 0
    if config.model is None:
        return
    corrupts_spans = config.objective.kind == "span_corruption"
    assert corrupts_spans == isinstance(config.model, T5Config)
    longest = config.model.max_length
    assert longest is None or config.objective.sequence_length <= longest


@pytest.mark.parametrize("path", RECIPES, ids=_name)
def test_the_header_gives_the_command_the_tokens_and_the_flops(path):
    header = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
    config = load(PretrainConfig, [path])
    steps, rows = config.loop.steps, config.loop.batch_size
    assert f"#   python -m medjax.pretrain {path.relative_to(CONFIGS.parent)}\n" in header
    assert f"# Tokens    {steps:,} x {rows} x " in header
    if config.model is not None:
        flops = steps * rows * train_flops(config.model, config.objective)
        assert f"# FLOPs     {flops:.1e} by training/flops.py".replace("e+", "e") in header


def test_run_directories_differ():
    folders = [load(PretrainConfig, [path]).run_dir for path in RECIPES]
    assert len(set(folders)) == len(folders)
