"""Configuration: bases, overrides, and errors that name file, field, value, limit and remedy."""

import subprocess
import sys
from typing import Annotated, Literal

import pytest
from pydantic import Field

from medjax.config import Schema, UserError, differences, load, save


class Adam(Schema):
    kind: Literal["adam"] = "adam"
    """Which."""
    beta: float = Field(0.9, lt=1)
    """Decay."""


class Sgd(Schema):
    kind: Literal["sgd"] = "sgd"
    """Which."""
    learning_rate: float = Field(0.1, gt=0)
    """Step size."""


class Example(Schema):
    optimizer: Annotated[Adam | Sgd, Field(discriminator="kind")] = Adam()
    """Update rule."""
    steps: int = Field(gt=0)
    """How many."""
    names: list[str] = []
    """Some names."""
    fast: bool = False
    """Whether to hurry."""


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_bases_merge_deeply_and_later_files_win(tmp_path):
    (tmp_path / "sub").mkdir()
    base = "steps: 1\noptimizer: {kind: sgd, learning_rate: 1}\nnames: [a, b]"
    write(tmp_path, "base.yaml", base)
    first = write(tmp_path, "sub/run.yaml", "base: ../base.yaml\noptimizer: {learning_rate: 2e-3}")
    second = write(tmp_path, "more.yaml", "names: [c]")
    config = load(Example, [first, second], ["steps=7"])
    assert config == Example(optimizer=Sgd(learning_rate=0.002), steps=7, names=["c"])


def test_saved_configuration_is_a_valid_input(tmp_path):
    config = Example(optimizer=Sgd(learning_rate=3.0), steps=2)
    save(config, tmp_path / "resolved.yaml")
    assert load(Example, [tmp_path / "resolved.yaml"]) == config


def test_every_problem_is_listed_with_its_place(tmp_path):
    base = write(tmp_path, "base.yaml", "optimizer: {kind: sgd, learning_rate: -1}")
    path = write(tmp_path, "run.yaml", "base: base.yaml\nstpes: 3\nnames: 5")
    with pytest.raises(UserError) as caught:
        load(Example, [path], ["optimizer.learnin_rate=1"])
    message = str(caught.value)
    assert f"{path}: 5 problems" in message
    assert f"optimizer.learning_rate = -1 ({base}): must be greater than 0" in message
    assert f"stpes = 3 ({path}): unknown name; did you mean steps?" in message
    assert "(command line): unknown name; did you mean optimizer.learning_rate?" in message
    assert f"names = 5 ({path}): must be a valid list" in message
    assert "steps: is required; set it in the file or with --steps" in message


def test_a_name_in_the_wrong_place_is_found(tmp_path):
    path = write(tmp_path, "run.yaml", "steps: 3\nlearning_rate: 1")
    with pytest.raises(UserError, match=r"did you mean optimizer\.learning_rate\?"):
        load(Example, [path])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("steps: [1", "not valid YAML"),
        ("- 1", "must hold `name: value` lines"),
        ("base: run.yaml", "leads back to itself"),
        ("base: nothing.yaml", r"no such configuration file \(named by `base:`"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, text, problem):
    with pytest.raises(UserError, match=problem):
        load(Example, [write(tmp_path, "run.yaml", text)])


def test_missing_file_suggests_a_neighbour(tmp_path):
    write(tmp_path, "clinical.yaml", "steps: 1")
    with pytest.raises(UserError, match=r"did you mean .*clinical\.yaml"):
        load(Example, [tmp_path / "clinica.yaml"])


def test_not_utf8(tmp_path):
    (tmp_path / "run.yaml").write_bytes(b"steps: 1 # \xff")
    with pytest.raises(UserError, match="not UTF-8 at byte 11"):
        load(Example, [tmp_path / "run.yaml"])


def test_differences_name_dotted_fields():
    old, new = Example(steps=1), Example(steps=2, optimizer=Adam(beta=0.5))
    assert differences(old, new) == ["optimizer.beta: 0.9 -> 0.5", "steps: 1 -> 2"]


COMMAND = """
import sys
sys.argv[0] = "pretrain"
from medjax.config import main
from tests.test_config import Example
run = lambda config: print("ran", config.steps, config.names, config.fast)
main(Example, run, "How to use it.")
"""


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["--steps", "3"], 0, "ran 3", ""),
        (["--optimizer.kind=sgd", "--optimizer.learning-rate=1e-3", "--steps=1"], 0, "ran 1", ""),
        (["--fast", "--steps", "3", "--names", "a:1", "--names=b"], 0, "3 ['a:1', 'b'] True", ""),
        (["--steps", "3", "--names", "[a]", "--fast"], 0, "ran 3 ['a'] True", ""),
        (["--steps", "3", "--fast", "false"], 0, "ran 3 [] False", ""),
        (["--steps"], 2, "", "--steps has no value"),
        (["--steps", "0"], 2, "", "steps = 0 (command line): must be greater than 0"),
        (["nothing.yaml"], 2, "", "nothing.yaml: no such configuration file"),
        ([], 2, "How to use it.", ""),
        (["--help"], 0, "How many.", ""),
        (["--steps", "17", "--help"], 0, "17", ""),
    ],
)
def test_command_line(arguments, code, out, err):
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, out in done.stdout, err in done.stderr) == (code, True, True), done
    assert "Traceback" not in done.stderr
