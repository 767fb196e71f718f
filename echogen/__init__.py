"""Generative augmentation of echocardiography datasets: real pixels moved, the rest painted.

Each command is a function here that takes the command's flags as keywords and returns its report.
"""

import importlib

TYPE_CHECKING = False  # typing's own would be most of the time until Ctrl-C is caught
if TYPE_CHECKING:
    from echogen.commands.expand import expand
    from echogen.commands.export import export
    from echogen.commands.preview import preview
    from echogen.commands.sample import sample
    from echogen.commands.stats import stats
    from echogen.commands.train import train
    from echogen.commands.validate import validate
    from echogen.loading import EchoDataset, LoadSample
    from echogen.store import open_store

__version__ = "0.1.0"
__all__ = [
    "EchoDataset",
    "LoadSample",
    "__version__",
    "expand",
    "export",
    "open_store",
    "preview",
    "sample",
    "stats",
    "train",
    "validate",
]

_ELSEWHERE = {"EchoDataset": "loading", "LoadSample": "loading", "open_store": "store"}


def __getattr__(name: str) -> object:
    # numpy and torch load when a function is asked for, not with the package
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _ELSEWHERE.get(name, f"commands.{name}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
