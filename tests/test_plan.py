"""Plans by the real TPU compiler: every kind of chip, what does not fit, what is tried then."""

import importlib.util
import json

import jax
import pytest
import yaml

from medjax import plan as plans
from medjax.config import UserError, load
from medjax.plan import PlanConfig, candidates, run
from medjax.training.flops import train_flops

LAYOUT = {
    "model": {
        "model_type": "bert",
        "vocab_size": 1000,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 256,
        "max_position_embeddings": 64,
    },
    "data": [{"path": "not/there"}],
    "objective": {"kind": "masked_lm", "sequence_length": 64},
    "optimizer": {"name": "adamw"},
    "loop": {"steps": 1000, "batch_size": 32},
    "compute": {"remat": "full"},
}
SLICES = {"v4:2x2x1": 4, "v5e:2x2": 4, "v5p:2x2x1": 4, "v6e:2x2": 4, "tpu7x:2x2x1": 4}


@pytest.fixture(scope="module", autouse=True)
def compiler():
    """The compiler of the extra `test`, where there is a wheel of it."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu has no wheel here")
    from medjax.training.aot import start_tpu_compiler

    start_tpu_compiler()


def configured(tmp_path, *overrides, **values):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(LAYOUT | values))
    return load(PlanConfig, [file], [f"cache={tmp_path / 'plans'}", *overrides])


def test_every_kind_of_chip(tmp_path, capsys, monkeypatch):
    """The plan of a small Llama, which compiles in less time than a BERT and its masks."""
    model = LAYOUT["model"] | {"model_type": "llama", "num_key_value_heads": 1}
    objective = {"kind": "causal_lm", "sequence_length": 64}
    options = [f"topology={','.join(SLICES)}", "price=2.0", "output=json"]
    config = configured(tmp_path, *options, model=model, objective=objective)
    assert run(config) == 0
    first, *others = json.loads(capsys.readouterr().out)
    found = {own["topology"]: own for own in (first, *others)}
    monkeypatch.setattr("medjax.training.aot._compiled", None)  # again, without compiling
    assert run(config.model_copy(update={"topology": [first["topology"]]})) == 0
    assert json.loads(capsys.readouterr().out) == [first]
    flops = 32 * train_flops(config.model, config.objective)
    for name, chips in SLICES.items():
        own = found[name]
        assert own["fits"] and own["chips"] == chips
        assert own["parameters"] + own["optimizer"] < own["memory_used"] < own["memory_limit"]
        assert own["flops_per_step"] == flops
        assert own["step_seconds"] == max(own["seconds_by_bound"].values())
        assert own["step_seconds"] == own["seconds_by_bound"][own["bound"]]
        assert 0 < own["mfu"] < 1 and own["run_tokens"] == 1000 * 32 * 65  # the last is not read
        assert own["run_cost"] == pytest.approx(own["run_hours"] * chips * 2.0)
        # copies of the model on all devices: its gradients are summed, about once
        reduced = own["interconnect_bytes"]["all-reduce"]
        devices = 8 if name.startswith("tpu7x") else 4
        assert own["mesh"] == {"data": devices, "fsdp": 1, "tensor": 1}
        share = 2 * (devices - 1) / devices
        assert 0.3 * share * own["parameters"] < reduced < 1.5 * share * own["parameters"]
    peak = [found[name]["seconds_by_bound"]["compute"] for name in ("v5e:2x2", "v6e:2x2")]
    assert peak[0] / peak[1] == pytest.approx(918 / 197)


@pytest.mark.long
def test_two_slices_talk_by_the_network(tmp_path):
    config = configured(tmp_path, "topology=v5e:2x2", "num_slices=2", "mesh.fsdp=4")
    own = plans.plan(config, "v5e:2x2")
    assert own["chips"] == 8 and own["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1}
    sent = own["network_bytes"]["between slices"]  # its part of all gradients, bf16 and float32
    assert 0.3 * own["parameters"] < sent < 1.5 * own["parameters"]
    assert own["interconnect_bytes"]["all-gather"] > 0


def test_long_inputs_take_the_splash_kernel():
    """Forward and backward, by rows and heads, compiled by the TPU compiler."""
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    from medjax.models.attention import Mask, attention
    from medjax.training.aot import compile_for, slice_devices
    from medjax.training.compiled import read_traffic

    devices = np.array(slice_devices("v5e:2x2", 1)).reshape(2, 1, 2)
    mesh = Mesh(devices, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def loss(weight, x, segments):
        mask = Mask(segments=(segments, segments), window=64)
        found = attention(x @ weight, x, x, mask, scale=0.125)
        return jnp.sum(found.astype(jnp.float32))

    weight = jax.ShapeDtypeStruct(
        (64, 64), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec())
    )
    x = jax.ShapeDtypeStruct((64, 2048, 2, 64), jnp.bfloat16, sharding=rows)
    segments = jax.ShapeDtypeStruct((64, 2048), jnp.int32, sharding=rows)
    with jax.set_mesh(mesh):
        step = jax.jit(jax.grad(loss, argnums=(0, 1)))
        made = compile_for(lambda: step.lower(weight, x, segments), 2.0**34, "v5e:2x2", None)
    for kernel in ("splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv"):
        assert kernel in made.text
    # after them the weight's gradients are summed over rows and heads
    assert "all-reduce" in read_traffic(made.text).by_kind(4)


@pytest.mark.parametrize("num_slices", [1, 2])
def test_weights_are_divided_over_part_of_a_side(num_slices):
    """Four chips of a side of sixteen: those that exchange weights lie close together."""
    from medjax.training.aot import slice_devices
    from medjax.training.config import MeshConfig
    from medjax.training.mesh import make_mesh

    devices = slice_devices("v5e:16x16", num_slices)
    mesh = make_mesh(MeshConfig(fsdp=4), 1, devices)
    assert dict(mesh.shape) == {"data": 64 * num_slices, "fsdp": 4, "tensor": 1}
    for group in mesh.devices[:, :, 0]:
        assert len({getattr(device, "slice_index", 0) for device in group}) == 1
        coords = [device.coords for device in group]
        assert max(max(side) - min(side) for side in zip(*coords, strict=True)) <= 3


def test_what_does_not_fit_is_changed_until_it_does(tmp_path, monkeypatch, capsys):
    """At most four other steps are compiled, the likeliest first."""
    tried = []

    def compiled(config, topology, devices, step):
        tried.append(step)
        return {"topology": topology, "fits": step.remat == "full", "step": step}

    monkeypatch.setattr(plans, "compile_step", compiled)
    config = configured(tmp_path, "topology=v5e:2x2", "compute.remat=none", "fit=true")
    found = plans.plan(config, "v5e:2x2")
    assert found["fits"] == (found["step"].remat == "full")
    assert len(tried) == found["compiled_steps"] <= 5 and len(set(tried)) == len(tried)
    tried.clear()
    config = configured(tmp_path, "topology=v5e:2x2", "compute.remat=none")
    found = plans.plan(config, "v5e:2x2")
    assert len(tried) == 1 and "try --fit" in found["advice"]


def test_a_batch_in_more_parts_than_it_has_rows_for_is_taken_in_fewer(tmp_path, monkeypatch):
    tried = []

    def compiled(config, topology, devices, step):
        tried.append(step)
        return {"topology": topology, "fits": True}

    monkeypatch.setattr(plans, "compile_step", compiled)
    loop = {"steps": 1000, "batch_size": 8, "accumulation": 4}
    plans.plan(configured(tmp_path, "topology=v5e:2x2", "fit=true", loop=loop), "v5e:2x2")
    assert [step.accumulation for step in tried] == [1]


def test_likelier_steps_come_first(tmp_path):
    """Those that should fit before the others, the fastest of them first."""
    large = LAYOUT["model"] | {"hidden_size": 1024, "num_hidden_layers": 24}
    large |= {"intermediate_size": 4096, "num_attention_heads": 16, "max_position_embeddings": 512}
    objective = {"kind": "masked_lm", "sequence_length": 512}
    loop = {"steps": 10, "batch_size": 256}
    config = configured(tmp_path, "topology=v5e:2x2", model=large, objective=objective, loop=loop)
    from medjax.training.aot import slice_devices

    devices = slice_devices("v5e:2x2", 1)
    own = plans.Step(1, "full", None)
    steps = list(candidates(config, devices, own))
    assert 0 < len(steps) <= 4
    params = 300_000_000
    needed = [plans.estimate(config, params, devices, step)[0] for step in steps]
    assert max(needed) < 15.75 * 2**30
    whole = plans.estimate(config, params, devices, plans.Step(1, "none", 1))[0]
    assert whole > 15.75 * 2**30


def test_a_step_beyond_the_memory_is_said_to_be(tmp_path, capsys):
    model = LAYOUT["model"] | {"hidden_size": 2048, "intermediate_size": 8192, "vocab_size": 32000}
    model |= {"num_attention_heads": 16, "max_position_embeddings": 1024}
    objective = {"kind": "masked_lm", "sequence_length": 1024}
    loop = {"steps": 10, "batch_size": 2048}
    config = configured(
        tmp_path,
        "topology=v5e:2x2",
        "compute.remat=none",
        model=model,
        objective=objective,
        loop=loop,
    )
    assert run(config) == 1
    printed = capsys.readouterr().out
    assert "does not fit" in printed and "a larger loop.accumulation" in printed


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["topology=v5e:3x5x7"], "knows no such slice"),
        (["topology=v9:2x2"], "knows no such slice"),
        (["topology=v5e:2x2", "loop.batch_size=6"], "does not divide over 4 devices"),
        (["topology=v5e:2x2", "vocab_size=2000"], "more than the model's 1000"),
    ],
)
def test_what_cannot_be_planned(tmp_path, overrides, problem):
    with pytest.raises(UserError, match=problem):
        run(configured(tmp_path, *overrides))


def test_a_published_model_is_given_by_its_shape(tmp_path):
    with pytest.raises(UserError, match="give the file of init_from's model too"):
        configured(tmp_path, "topology=v5e:2x2", "init_from=models/bert", model=None)
    config = configured(tmp_path, "topology=v5e:2x2", "init_from=models/bert")
    assert config.model.hidden_size == 128
    assert jax.default_backend() == "cpu"  # nothing here has touched a TPU
