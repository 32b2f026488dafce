"""The model families as pure functions; names are imported on first use, so that this is light."""

from importlib import import_module

_HOMES = {
    "Head": "model",
    "Model": "model",
    "Output": "model",
    "build_model": "model",
    "Spec": "spec",
    "abstract_params": "spec",
    "count_params": "spec",
    "init_params": "spec",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
