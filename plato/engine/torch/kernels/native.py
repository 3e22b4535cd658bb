"""The compiled kernels as `Kernels`, and a whole decoder computed in one call."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import pad

from plato.engine.torch.kernels.memory import huge_pages
from plato.engine.torch.kernels.portable import QueryRows
from plato.engine.torch.kernels.team_size import TeamSize

MAX_DIM = 256
MAX_TILE = 16
"""Query heads that one task computes together."""

TILE_OUTPUTS = 16
"""Outputs of an int8 product that one task computes together."""

_POINTER = ctypes.c_void_p
_COUNT = ctypes.c_int64


class _Linear(ctypes.Structure):
    _fields_ = (
        ("packed", _POINTER),
        ("scales", _POINTER),
        ("bias", _POINTER),
        ("columns", _COUNT),
        ("outputs", _COUNT),
    )


class _Look(ctypes.Structure):
    _fields_ = (
        ("keys", _POINTER),
        ("values", _POINTER),
        ("bfloat16", ctypes.c_int),
        ("slots", _POINTER),
        ("offsets", _POINTER),
        ("lengths", _POINTER),
        ("tiles", _POINTER),
        ("tile_count", _COUNT),
        ("heads", _COUNT),
        ("kv_heads", _COUNT),
        ("dim", _COUNT),
        ("scaling", ctypes.c_float),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("attention_norm", _POINTER),
        ("mlp_norm", _POINTER),
        ("query_norm", _POINTER),
        ("key_norm", _POINTER),
        ("eps", ctypes.c_float),
        ("qkv", _Linear),
        ("output", _Linear),
        ("gate_up", _Linear),
        ("down", _Linear),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("rows", _COUNT),
        ("hidden", _COUNT),
        ("cosine", _POINTER),
        ("sine", _POINTER),
        ("new_slots", _POINTER),
        ("keys", _POINTER),
        ("values", _POINTER),
        ("look", _Look),
    )


class _Scratch(ctypes.Structure):
    _fields_ = (
        ("normed", _POINTER),
        ("qkv", _POINTER),
        ("attended", _POINTER),
        ("both", _POINTER),
        ("rounded", _POINTER),
        ("scales", _POINTER),
    )


_SIGNATURES = {
    "plato_rms_norm": [_POINTER, _POINTER, ctypes.c_float, _COUNT, _COUNT, _POINTER],
    "plato_linear": [
        ctypes.c_int,
        ctypes.POINTER(_Linear),
        _POINTER,
        _COUNT,
        _POINTER,
        _POINTER,
        _POINTER,
    ],
    "plato_swiglu": [_POINTER, _COUNT, _COUNT, _POINTER],
    "plato_rotate_and_store": [
        *[_POINTER] * 4,
        *[_COUNT] * 4,
        ctypes.c_int,
        _POINTER,
        _POINTER,
    ],
    "plato_attend": [ctypes.c_int, _POINTER, _COUNT, ctypes.POINTER(_Look), _POINTER],
    "plato_layers": [
        ctypes.c_int,
        ctypes.POINTER(_Layer),
        _COUNT,
        ctypes.POINTER(_Step),
        ctypes.POINTER(_Scratch),
        _POINTER,
    ],
    "plato_seconds": [_POINTER],
}

PHASES = ("linears", "attention", "norms, rotary, activation")
"""Phases that `NativeKernels.seconds` reports."""


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """The weight of a linear layer in int8, with a scale per output."""

    packed: torch.Tensor
    """int8 [blocks of outputs, groups of inputs, TILE_OUTPUTS, group], padded with zeros."""
    scales: torch.Tensor
    """float32 [outputs]."""
    columns: int
    outputs: int

    @property
    def width(self) -> int:
        """Number of inputs, padded."""
        return self.packed.shape[1] * self.packed.shape[3]


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Weights of a decoder layer. Norms are float32 vectors."""

    attention_norm: torch.Tensor
    mlp_norm: torch.Tensor
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    eps: float
    qkv: PackedWeight
    qkv_bias: torch.Tensor | None
    output: PackedWeight
    output_bias: torch.Tensor | None
    gate_up: PackedWeight
    gate_up_bias: torch.Tensor | None
    down: PackedWeight
    down_bias: torch.Tensor | None

    @property
    def products(self) -> tuple[PackedWeight, ...]:
        """The weights of the matrix products, in the order of their use."""
        return self.qkv, self.output, self.gate_up, self.down


class NativeKernels:
    """The kernels in C. Their arguments are contiguous tensors on the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = None
        self._rms_norm = library.plato_rms_norm
        self._linear = library.plato_linear
        self._swiglu = library.plato_swiglu
        self._rotate_and_store = library.plato_rotate_and_store
        self._attend = library.plato_attend
        self._layers = library.plato_layers
        self._seconds = library.plato_seconds
        library.plato_prepare.restype = _COUNT
        self.threads = torch.get_num_threads()
        """Threads that compute a step."""
        self._group: int = library.plato_prepare()
        """Consecutive inputs of one output that are adjacent in a packed weight."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """See `Kernels`."""
        out = torch.empty_like(x)
        columns = x.shape[-1]
        rows = x.numel() // columns
        self._rms_norm(x.data_ptr(), weight.data_ptr(), eps, rows, columns, out.data_ptr())
        return out

    def pack(self, weight: torch.Tensor) -> PackedWeight:
        """Quantise a weight [outputs, columns] to int8, with 127 as the largest of each output."""
        outputs, columns = weight.shape
        weight = weight.float()
        scales = (weight.abs().amax(1) / 127.0).clamp_min(torch.finfo(torch.float32).tiny)
        rounded = (weight / scales[:, None]).round().to(torch.int8)
        # The tile registers of some CPUs take groups of four inputs, sixteen at a time.
        unit = 64 if self._group == 4 else self._group
        rounded = pad(rounded, (0, -columns % unit, 0, -outputs % TILE_OUTPUTS))
        blocks = rounded.view(-1, TILE_OUTPUTS, rounded.shape[1] // self._group, self._group)
        return PackedWeight(blocks.transpose(1, 2).contiguous(), scales, columns, outputs)

    def linear(
        self, x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """A linear layer of float32 `x` [rows, columns]: float32 [rows, outputs].

        Rows are quantised to 16 bits with a scale each. A row's result is bit for bit the same in
        any batch, because integer sums are exact.
        """
        rows = len(x)
        scratch = torch.empty((rows, weight.width), dtype=torch.int16)
        scales = torch.empty(rows)
        out = torch.empty((rows, weight.outputs))
        self._linear(
            self.threads,
            _linear(weight, bias),
            x.data_ptr(),
            rows,
            scratch.data_ptr(),
            scales.data_ptr(),
            out.data_ptr(),
        )
        return out

    def swiglu(self, both: torch.Tensor) -> torch.Tensor:
        """See `Kernels`."""
        rows, columns = both.shape[0], both.shape[1] // 2
        out = torch.empty((rows, columns))
        self._swiglu(both.data_ptr(), rows, columns, out.data_ptr())
        return out

    def rotate_and_store(
        self,
        qkv: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        slots: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """See `Kernels`."""
        kv_heads = keys.shape[1]
        rows, all_heads, dim = qkv.shape
        cosine, sine = rotary
        self._rotate_and_store(
            qkv.data_ptr(),
            cosine.data_ptr(),
            sine.data_ptr(),
            slots.data_ptr(),
            rows,
            all_heads - 2 * kv_heads,
            kv_heads,
            dim,
            keys.dtype is torch.bfloat16,
            keys.data_ptr(),
            values.data_ptr(),
        )

    def attend(
        self,
        qkv: torch.Tensor,
        rows: QueryRows,
        keys: torch.Tensor,
        values: torch.Tensor,
        scaling: float,
        out: torch.Tensor,
    ) -> None:
        """See `Kernels`."""
        _, heads, dim = out.shape
        look = _look(rows, heads, keys, scaling)
        look.keys, look.values = keys.data_ptr(), values.data_ptr()
        self._attend(self.threads, qkv.data_ptr(), qkv.shape[1] * dim, look, out.data_ptr())

    def seconds(self) -> dict[str, float]:
        """Seconds that this process has spent in each of `PHASES` so far."""
        times = (ctypes.c_double * len(PHASES))()
        self._seconds(times)
        return dict(zip(PHASES, times, strict=True))


class NativeDecoder:
    """The layers of a decoder, computed in one call. Not thread-safe."""

    def __init__(
        self, kernels: NativeKernels, layers: Sequence[LayerWeights], *, dim: int, scaling: float
    ) -> None:
        """`dim`: head dimension; `scaling`: of the attention scores."""
        self._kernels = kernels
        self._team = TeamSize()
        self._run = kernels._layers
        self._weights = gathered(layers)
        self._layers = (_Layer * len(layers))(*map(_layer, self._weights))
        first = self._weights[0]
        self._dim, self._scaling = dim, scaling
        self._hidden = first.qkv.columns
        self._widths = {
            "normed": 4 * first.qkv.columns,
            "qkv": 4 * first.qkv.outputs,
            "attended": 4 * first.output.columns,
            "both": 4 * first.gate_up.outputs,
            "rounded": 2 * max(one.width for one in first.products),
            "scales": 4,
        }
        """Bytes per row of each part of the scratch memory."""
        self._scratch = torch.empty(0, dtype=torch.uint8)

    def compute(
        self,
        hidden: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        new_slots: torch.Tensor,
        rows: QueryRows,
        keys: Sequence[torch.Tensor],
        values: Sequence[torch.Tensor],
    ) -> None:
        """Bring float32 `hidden` [rows, hidden size] through all layers, in place.

        `rotary` are cosines and sines [rows, dim]; `new_slots` [rows] say where in `keys` and
        `values`, a tensor [capacity, KV heads, dim] for each layer, a row's KV goes.
        """
        count = len(hidden)
        pointers = [
            (ctypes.c_void_p * len(part))(*(tensor.data_ptr() for tensor in part))
            for part in (keys, values)
        ]
        heads = self._weights[0].output.columns // self._dim
        step = _Step(
            rows=count,
            hidden=self._hidden,
            cosine=rotary[0].data_ptr(),
            sine=rotary[1].data_ptr(),
            new_slots=new_slots.data_ptr(),
            keys=ctypes.cast(pointers[0], _POINTER),
            values=ctypes.cast(pointers[1], _POINTER),
            look=_look(rows, heads, keys[0], self._scaling),
        )
        scratch = self._scratch_for(count)
        busy, began = time.thread_time(), time.perf_counter()
        self._run(
            self._team.size(self._kernels.threads),
            self._layers,
            len(self._layers),
            step,
            scratch,
            hidden.data_ptr(),
        )
        self._team.note(time.thread_time() - busy, time.perf_counter() - began)

    def _scratch_for(self, rows: int) -> _Scratch:
        """Scratch memory for `rows` rows; each part starts on its own cache line."""
        sizes = {name: -(-rows * width // 64) * 64 for name, width in self._widths.items()}
        if self._scratch.numel() < sum(sizes.values()) + 64:
            self._scratch = torch.empty(sum(sizes.values()) + 64, dtype=torch.uint8)
        at = -(-self._scratch.data_ptr() // 64) * 64
        parts = {}
        for name, size in sizes.items():
            parts[name] = at
            at += size
        return _Scratch(**parts)


def gathered(layers: Sequence[LayerWeights]) -> list[LayerWeights]:
    """The same layers with their packed weights consecutive on huge pages.

    A step reads all of them: on small pages, TLB misses take a tenth of the time.
    """
    weights = [one for layer in layers for one in layer.products]
    memory = huge_pages(sum(one.packed.numel() for one in weights)).view(torch.int8)
    at = 0

    def moved(weight: PackedWeight) -> PackedWeight:
        nonlocal at
        packed = memory[at : at + weight.packed.numel()].view(weight.packed.shape)
        packed.copy_(weight.packed)
        at += packed.numel()
        return replace(weight, packed=packed)

    return [
        replace(
            layer,
            qkv=moved(layer.qkv),
            output=moved(layer.output),
            gate_up=moved(layer.gate_up),
            down=moved(layer.down),
        )
        for layer in layers
    ]


def _layer(weights: LayerWeights) -> _Layer:
    return _Layer(
        attention_norm=weights.attention_norm.data_ptr(),
        mlp_norm=weights.mlp_norm.data_ptr(),
        query_norm=_address(weights.query_norm),
        key_norm=_address(weights.key_norm),
        eps=weights.eps,
        qkv=_linear(weights.qkv, weights.qkv_bias),
        output=_linear(weights.output, weights.output_bias),
        gate_up=_linear(weights.gate_up, weights.gate_up_bias),
        down=_linear(weights.down, weights.down_bias),
    )


def _linear(weight: PackedWeight, bias: torch.Tensor | None) -> _Linear:
    return _Linear(
        packed=weight.packed.data_ptr(),
        scales=weight.scales.data_ptr(),
        bias=_address(bias),
        columns=weight.columns,
        outputs=weight.outputs,
    )


def _look(rows: QueryRows, heads: int, keys: torch.Tensor, scaling: float) -> _Look:
    _, kv_heads, dim = keys.shape
    if dim > MAX_DIM or heads > kv_heads * MAX_TILE:
        raise AssertionError("the head dimension or group is too large for the native attention")
    return _Look(
        bfloat16=keys.dtype is torch.bfloat16,
        slots=rows.slots.data_ptr(),
        offsets=rows.offsets.data_ptr(),
        lengths=rows.lengths.data_ptr(),
        tiles=rows.tiles.data_ptr(),
        tile_count=len(rows.tiles) - 1,
        heads=heads,
        kv_heads=kv_heads,
        dim=dim,
        scaling=scaling,
    )


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
