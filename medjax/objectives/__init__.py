"""Pretraining objectives, run on the device; names are imported on first use, so this is light."""

from importlib import import_module

_HOMES = {
    "CausalLmConfig": "config",
    "MaskedLmConfig": "config",
    "ObjectiveConfig": "config",
    "SpanCorruptionConfig": "config",
    "Objective": "objective",
    "build_objective": "objective",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
