"""What lies between a decoder layer's matrix products: native on a CPU, portable elsewhere."""

from __future__ import annotations

from plato.engine.torch.kernels.build import load_library
from plato.engine.torch.kernels.native import NativeKernels
from plato.engine.torch.kernels.portable import Kernels, PortableKernels, QueryRows

__all__ = ["Kernels", "NativeKernels", "PortableKernels", "QueryRows", "new_kernels"]


def new_kernels() -> Kernels:
    """The fastest kernels for this machine's CPU."""
    library = load_library()
    return PortableKernels() if library is None else NativeKernels(library)
