"""Generative augmentation of echocardiography datasets: real pixels moved, the rest painted."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from echogen.loading import EchoDataset, LoadSample

__version__ = "0.1.0"
__all__ = ["EchoDataset", "LoadSample", "__version__"]


def __getattr__(name: str) -> Any:
    # torch loads when a dataset is asked for, not with the package
    if name in ("EchoDataset", "LoadSample"):
        from echogen import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
