"""The whole run: resumed equals uninterrupted, whatever stopped it; bad input gets a sentence."""

import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import jax
import numpy as np
import pytest

from medjax import prepare
from medjax.config import UserError, save
from medjax.data.config import PrepareConfig
from medjax.data.manifest import read_manifest
from medjax.data.shards import open_split
from medjax.data.synthetic import write_notes
from medjax.hub.folder import load_pretrained
from medjax.models.config import Compute
from medjax.pretrain import run
from medjax.scoring.lineage import read_lineage
from medjax.training.checkpoint import restore_latest, saved_steps
from medjax.training.loop import EXIT_PREEMPTED, Diverged, Meter
from medjax.training.plateau import unigram_plateau
from medjax.training.tracker import read_metrics
from tests.training.conftest import DROPOUT, VOCABULARY, config_in, config_of, prepared  # noqa: F401

TIMES = ("seconds", "tokens_per_s", "mfu", "goodput")


def deterministic_metrics(run_dir):
    return [{k: v for k, v in m.items() if k not in TIMES} for m in read_metrics(run_dir)]


def final_state(run_dir):
    """Every array of the newest checkpoint, and the notes that do not tell time."""
    from orbax.checkpoint import v1 as ocp

    folder = os.path.abspath(f"{run_dir}/checkpoints")
    step = saved_steps(folder)[-1]
    host = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    tree = jax.tree.map(
        lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=host),
        ocp.metadata(f"{folder}/{step:08d}").metadata,
    )
    restored = restore_latest(folder, tree)
    notes = {k: v for k, v in restored.notes.items() if k not in ("seconds", "goodput")}
    notes["lineage"][-1].pop("name")  # the folder's
    return jax.device_get(restored.state), notes


def assert_same_run(a, b):
    (state_a, notes_a), (state_b, notes_b) = final_state(a), final_state(b)
    jax.tree.map(np.testing.assert_array_equal, state_a, state_b)
    assert notes_a == notes_b
    assert deterministic_metrics(a) == deterministic_metrics(b)


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):  # noqa: F811
    """`finished(family)`: the configuration of a run that was made, for all that read it."""
    folder, made = tmp_path_factory.mktemp("finished"), {}

    def of(family):
        if family not in made:
            profile = ("loop.profile_at=3", "loop.profile_steps=2") if family == "t5" else ()
            made[family] = config_in(folder, prepared, family, *profile, run=family)
            assert run(made[family]) == 0
        return made[family]

    return of


def start(config, path, devices=1):
    save(config, path)
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    return subprocess.Popen(
        [sys.executable, "-m", "medjax.pretrain", str(path)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop_after(monkeypatch, step):
    """SIGTERM to this process once metrics of `step` are in."""
    original = Meter.add

    def add(self, now, metrics):
        original(self, now, metrics)
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Meter, "add", add)


def wait_for(condition, process):
    end = time.monotonic() + 120
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"ended early or hangs: {process.stderr.read()[-2000:]}")
        time.sleep(0.005)


KILLS = [signal.SIGTERM, signal.SIGKILL]


@pytest.mark.parametrize(
    ("family", "signals"),
    [("bert", KILLS), pytest.param("t5", 7 * KILLS, marks=pytest.mark.long)],
)
def test_an_interrupted_run_equals_an_uninterrupted_one(config_of, tmp_path, family, signals):  # noqa: F811
    """At random moments, every other time while a checkpoint is being written, then to the end."""
    steps = 20 + 6 * len(signals)
    often = (f"loop.steps={steps}", "checkpoint.every=2", "evaluation.every=10")
    often += ("loop.deterministic=true", *DROPOUT[family])
    whole, broken = (config_of(family, *often, run=run) for run in ("whole", "broken"))
    assert start(whole, tmp_path / "whole.yaml").wait() == 0
    rng = random.Random(0)
    checkpoints = tmp_path / "broken" / "checkpoints"
    for i, number in enumerate(signals):
        process = start(broken, tmp_path / "broken.yaml")
        before = max(saved_steps(checkpoints), default=0)
        wait_for(lambda: max(saved_steps(checkpoints), default=0) >= before + 4, process)  # noqa: B023
        if i % 2:
            wait_for(lambda: any(checkpoints.glob("*tmp*")), process)
        time.sleep(rng.random() / 20)
        process.send_signal(number)
        expected = -number if number == signal.SIGKILL else EXIT_PREEMPTED
        assert process.wait(timeout=60) == expected
    process = start(broken, tmp_path / "broken.yaml")
    assert process.wait() == 0, process.stderr.read()
    assert "resumed from the checkpoint of step" in process.stderr.read()
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    spent = [json.loads((tmp_path / n / "goodput.json").read_text()) for n in ("whole", "broken")]
    assert spent[0]["lost"] == 0 < spent[1]["lost"]
    for own in spent:
        assert min(own.values()) >= 0 and own["steps"] > 0 and own["checkpoint"] > 0


def test_a_decoder_goes_on_from_its_export(config_of, tmp_path):  # noqa: F811
    """Causal language modelling from scratch, then continued: below where it stopped."""
    for _ in range(2):  # a run that had come to its end has lost nothing when it is opened again
        assert run(config_of("llama")) == 0
    assert json.loads((tmp_path / "run" / "goodput.json").read_text())["lost"] == 0
    init = f"init_from={tmp_path / 'run' / 'export'}"
    assert run(config_of("llama", init, "model=null", run="more")) == 0
    first, more = (
        [m for m in read_metrics(tmp_path / name) if "validation/loss" in m]
        for name in ("run", "more")
    )
    assert more[-1]["validation/loss"] < first[-1]["validation/loss"] < first[0]["validation/loss"]
    assert {n.removeprefix("validation/") for n in first[0]} == {
        "step", "loss", "accuracy", "perplexity", "bits_per_byte", "batches", "unigram_plateau",
    }  # fmt: skip
    above, below = np.array(first[0]["validation/batches"]).sum(0)
    assert first[0]["validation/bits_per_byte"] == pytest.approx(above / below)
    manifest = read_manifest(config_of("llama").data[0].path).splits["validation"]
    bits = first[0]["validation/loss"] / math.log(2) * manifest.tokens / manifest.bytes
    assert first[0]["validation/bits_per_byte"] == pytest.approx(bits)
    values = json.loads((tmp_path / "more" / "export" / "config.json").read_text())
    assert values["architectures"] == ["LlamaForCausalLM"]


def test_a_disk_that_takes_no_more_is_one_sentence(config_of, tmp_path):  # noqa: F811
    """A limit on the size of files stands for the full disk."""
    config = config_of("llama")
    save(config, tmp_path / "run.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "medjax.pretrain", str(tmp_path / "run.yaml")],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_ENABLE_COMPILATION_CACHE": "false"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, 2**14)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "the checkpoint could not be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_export_is_what_was_trained(finished):
    config = finished("t5")
    run_dir = Path(config.run_dir)
    assert list((run_dir / "profile").rglob("*.xplane.pb"))
    model, params = load_pretrained(run_dir / "export", Compute(dtype="float32"))
    state, _ = final_state(run_dir)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(params), state["params"])
    card = (run_dir / "export" / "README.md").read_text()
    assert "tokens seen" in card and model.config == config.model
    first, last = read_metrics(run_dir)[0], read_metrics(run_dir)[-1]
    assert first["loss"] > last["validation/loss"] > 0


def assert_same_losses(a, b):
    """Of the same steps, within rounding."""
    for expected, found in zip(read_metrics(a), read_metrics(b), strict=True):
        assert expected["step"] == found["step"]
        name = "loss" if "loss" in expected else "validation/loss"
        np.testing.assert_allclose(expected[name], found[name], rtol=1e-4)


def test_a_run_goes_on_on_another_mesh(config_of, finished, tmp_path, monkeypatch):  # noqa: F811
    """The same blocks in the same order, and the same losses within rounding."""
    whole = finished("t5").run_dir
    stop_after(monkeypatch, 4)
    assert run(config_of("t5", run="moved")) == EXIT_PREEMPTED
    monkeypatch.undo()
    assert run(config_of("t5", "mesh.fsdp=2", "mesh.tensor=2", run="moved")) == 0
    assert_same_losses(whole, tmp_path / "moved")


@pytest.mark.long
def test_a_run_goes_on_on_more_devices(config_of, tmp_path):  # noqa: F811
    """Begun on one, killed and resumed on two, and ended on eight that share every weight."""
    often = ("loop.steps=24", "checkpoint.every=2", "loop.log_every=1")
    meshes = {1: [], 2: [], 8: ["mesh.fsdp=8"]}
    for devices, mesh in meshes.items():
        config = config_of("bert", *often, *mesh, run="moved")
        process = start(config, tmp_path / "moved.yaml", devices)
        if devices == 8:
            assert process.wait() == 0, process.stderr.read()
        else:
            checkpoints = tmp_path / "moved" / "checkpoints"
            last = max(saved_steps(checkpoints), default=0)
            wait_for(lambda: max(saved_steps(checkpoints), default=0) > last, process)  # noqa: B023
            process.kill()
            assert process.wait() == -signal.SIGKILL
    assert run(config_of("bert", *often, run="whole")) == 0
    assert_same_losses(tmp_path / "whole", tmp_path / "moved")


def test_continues_from_an_export_and_from_a_checkpoint(config_of, finished, tmp_path):  # noqa: F811
    first = Path(finished("bert").run_dir)
    losses = {}
    for name, source in {"export": "export", "run": "", "step": f"checkpoints/{8:08d}"}.items():
        options = (f"init_from={first / source}", "model=null", "loop.steps=3")
        assert run(config_of("bert", *options, run=name)) == 0
        losses[name] = read_metrics(tmp_path / name)[0]["loss"]
    assert losses["export"] == losses["run"] == losses["step"]
    assert losses["export"] < read_metrics(first)[0]["loss"]


def test_a_corpus_of_an_address_is_the_same_corpus(config_of, finished, prepared, tmp_path):  # noqa: F811
    expected = deterministic_metrics(finished("t5").run_dir)
    memory = fsspec.filesystem("memory")
    memory.put(str(prepared["t5"]), "/bucket/t5", recursive=True)
    data = ["data=[{path: memory://bucket/t5}]", f"staging={tmp_path / 'disk'}"]
    elsewhere = tmp_path / "bucket" / "checkpoints"
    data.append(f"checkpoint.folder={elsewhere}")
    assert run(config_of("t5", *data, run="copied")) == 0
    assert deterministic_metrics(tmp_path / "copied") == expected
    assert not (tmp_path / "copied" / "checkpoints").exists()
    there = [f"data=[{{path: 'file://{prepared['t5']}'}}]", data[1], "stream=true"]
    assert run(config_of("t5", *there, run="streamed")) == 0
    assert deterministic_metrics(tmp_path / "streamed") == expected
    start = f"init_from={elsewhere}/{saved_steps(elsewhere)[-1]:08d}"
    assert run(config_of("t5", start, "model=null", "loop.steps=1", run="further")) == 0
    with pytest.raises(UserError, match="an address needs staging"):
        config_of("t5", data[0])
    with pytest.raises(UserError, match="stream needs staging"):
        config_of("t5", "stream=true")


def test_a_finished_run_is_left_as_it_is(finished):
    config = finished("t5")
    metrics = Path(config.run_dir) / "metrics.jsonl"
    before = metrics.read_text()
    assert run(config) == 0
    assert metrics.read_text() == before


def test_another_configuration_in_the_same_directory_is_refused(finished):
    config = finished("t5")
    other = config.model_copy(update={"loop": config.loop.model_copy(update={"seed": 5})})
    with pytest.raises(UserError, match=r"loop\.seed: 0 -> 5"):
        run(other)


def test_a_loss_that_is_not_finite_stops_the_run(config_of, tmp_path):  # noqa: F811
    config = config_of("llama", "schedule.learning_rate=1e30", "checkpoint.every=1")
    with pytest.raises(Diverged, match=r"not finite at step \d+; .*checkpoint"):
        run(config)
    for step in saved_steps(tmp_path / "run" / "checkpoints"):
        losses = json.loads((tmp_path / f"run/checkpoints/{step:08d}.json").read_text())
        assert np.isfinite(losses["notes"]["sums"].get("loss", 0.0))


@pytest.mark.parametrize(
    ("family", "overrides", "problem"),
    [
        ("bert", ["loop.batch_size=12"], "does not divide over 8 devices"),
        ("bert", ["loop.accumulation=3"], "use a multiple of 24"),
        ("bert", ["mesh.data=3"], "there are 8 devices"),
        ("bert", ["model.vocab_size=100"], f"less than the tokenizer's {VOCABULARY} ids"),
        ("bert", ["objective.sequence_length=64"], "more than the 32 positions"),
        ("bert", ["objective.sequence_length=100000"], "positions"),
        ("t5", ["objective.inputs_length=2048"], "sentinels"),
        ("bert", ["objective.kind=span_corruption"], "span_corruption has no such field"),
        ("t5", ["objective.kind=masked_lm"], "masked_lm has no such field"),
        ("bert", ["objective.kind=causal_lm"], "causal_lm needs a decoder"),
        ("llama", ["objective.kind=masked_lm"], "masked_lm needs an encoder"),
        ("t5", ["loop.batch_size=100000"], "use more notes, shorter blocks or a smaller batch"),
        ("t5", ["init_from=nothing", "model=null"], "nothing"),
        ("t5", ["data=[{path: nothing}]"], "not a prepared folder"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_no_run(config_of, tmp_path, family, overrides, problem):  # noqa: F811
    with pytest.raises(UserError, match=problem):
        run(config_of(family, *overrides))
    assert not (tmp_path / "run").exists()


def test_validation_may_be_on_other_notes_than_those_that_are_read(config_of, prepared, tmp_path):  # noqa: F811
    write_notes(tmp_path / "notes.jsonl", num_patients=20, seed=1)
    source = {"path": str(tmp_path / "notes.jsonl"), "id": "id", "patient": "patient"}
    more = {"tokenizer": prepared["bert"] + "/tokenizer", "output": str(tmp_path / "other")}
    prepare.run(PrepareConfig(sources=[source], validation_fraction=0.3, **more))
    assert run(config_of("llama", "loop.steps=4")) == 0
    other = config_of("llama", "loop.steps=4", f"evaluation.data={tmp_path / 'other'}", run="o")
    assert run(other) == 0
    own, found = (read_metrics(tmp_path / name) for name in ("run", "o"))
    assert [m["loss"] for m in own if "loss" in m] == [m["loss"] for m in found if "loss" in m]
    assert own[-1]["validation/loss"] != found[-1]["validation/loss"]
    split = open_split(tmp_path / "other", "validation")
    plateau = unigram_plateau(split, other.objective)
    assert found[-1]["validation/unigram_plateau"] == pytest.approx(plateau)
    (stage,) = read_lineage(tmp_path / "o")
    notes = f"{split.info.documents:,} notes of {split.info.bytes:,} bytes"
    assert stage.validated_on == notes
    with pytest.raises(UserError, match="prepared with another tokenizer"):
        run(config_of("t5", f"evaluation.data={tmp_path / 'other'}", run="t"))


def test_corpora_of_two_tokenizers_are_refused(config_of, prepared):  # noqa: F811
    both = [{"path": prepared["t5"]}, {"path": prepared["bert"]}]
    with pytest.raises(UserError, match="prepared with another tokenizer"):
        run(config_of("t5", f"data={json.dumps(both)}"))


def test_notes_of_another_tokenizer_are_refused(config_of, finished, prepared):  # noqa: F811
    first = finished("bert").run_dir
    for source in (first, f"{first}/export"):
        init = f"init_from={source}"
        other = f"data=[{{path: {prepared['t5']}}}]"
        with pytest.raises(UserError, match="prepare the notes again with the tokenizer of"):
            run(config_of("bert", init, other, "model=null", run="b"))


@pytest.mark.parametrize(
    ("field", "place", "split"),
    [
        ("data=[{{path: {}}}]", r"data\[0\]", "train"),
        ("evaluation.data={}", "evaluation.data", "validation"),
    ],
)
def test_notes_prepared_anew_are_refused(config_of, prepared, tmp_path, field, place, split):  # noqa: F811
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(prepared["llama"], copy)
    config = config_of("llama", "loop.steps=2", field.format(copy))
    assert run(config) == 0
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"][split]["shards"][0]["sha256"]["tokens"] = "0"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"{place}: its shards are not those"):
        run(config)


def test_a_vanished_shard_is_named(config_of, prepared, tmp_path):  # noqa: F811
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(prepared["t5"], copy)
    next(copy.glob("train/*.tokens")).unlink()
    with pytest.raises(UserError, match=r"00000\.tokens"):
        run(config_of("t5", f"data=[{{path: {copy}}}]"))
