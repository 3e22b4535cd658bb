"""Operations of a decoder layer: compiled for this machine's CPU, or in plain torch."""

from __future__ import annotations

from plato.engine.torch.kernels.build import load_library
from plato.engine.torch.kernels.native import NativeDecoder, NativeKernels
from plato.engine.torch.kernels.portable import Kernels, PortableKernels, QueryRows
from plato.engine.torch.kernels.weights import (
    LayerWeights,
    LowRank,
    PackedLinear,
    PackedLowRank,
    PackedWeight,
)

__all__ = [
    "Kernels",
    "LayerWeights",
    "LowRank",
    "NativeDecoder",
    "NativeKernels",
    "PackedLinear",
    "PackedLowRank",
    "PackedWeight",
    "PortableKernels",
    "QueryRows",
    "has_compiled_kernels",
    "new_kernels",
]


def new_kernels() -> Kernels:
    """The fastest kernels for this machine's CPU."""
    library = load_library()
    return PortableKernels() if library is None else NativeKernels(library)


def has_compiled_kernels() -> bool:
    """Whether the C kernels are compiled already or can be compiled on this machine."""
    return load_library() is not None
