"""The compiled kernels as `Kernels`, and a whole decoder computed in one call."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from plato.engine.torch.kernels.portable import QueryRows
from plato.engine.torch.kernels.team_size import TeamSize
from plato.engine.torch.kernels.weights import (
    TILE_OUTPUTS,
    LayerWeights,
    LowRank,
    PackedLinear,
    PackedLowRank,
    PackedWeight,
    gathered,
    pack_expand,
    pad_outputs,
    rounded,
)

MAX_DIM = 256
MAX_TILE = 16
"""Query heads that one task computes together."""

_POINTER = ctypes.c_void_p
_COUNT = ctypes.c_int64


class _LowRank(ctypes.Structure):
    """Its fields follow those of `_Linear`, which each refers to."""


class _Linear(ctypes.Structure):
    _fields_ = (
        ("packed", _POINTER),
        ("scales", _POINTER),
        ("bias", _POINTER),
        ("columns", _COUNT),
        ("outputs", _COUNT),
        ("change", ctypes.POINTER(_LowRank)),
    )


_LowRank._fields_ = (
    ("reduce", ctypes.POINTER(_Linear)),
    ("packed", _POINTER),
    ("scales", _POINTER),
    ("bias", _POINTER),
    ("starts", _POINTER),
    ("width", _COUNT),
    ("rank", _COUNT),
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
        ("adapted_begin", _COUNT),
        ("adapted_end", _COUNT),
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
        ("reduced", _POINTER),
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
        whole, scales = rounded(weight)
        # The tile registers of some CPUs take groups of four inputs, sixteen at a time.
        unit = 64 if self._group == 4 else self._group
        whole = pad(whole, (0, -columns % unit))
        blocks = whole.view(-1, TILE_OUTPUTS, whole.shape[1] // self._group, self._group)
        return PackedWeight(blocks.transpose(1, 2).contiguous(), scales, columns, outputs)

    def pack_low_rank(self, change: LowRank) -> PackedLowRank:
        """Quantise the change that an adapter makes to a linear layer."""
        expand, starts, scales = pack_expand(change.expand)
        bias = None if change.bias is None else pad_outputs(change.bias)
        return PackedLowRank(self.pack(change.reduce), expand, starts, scales, bias)

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
            _linear(PackedLinear(weight, bias, None)),
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
        self._hidden = first.qkv.weight.columns
        linears = [linear for layer in self._weights for linear in layer.linears]
        ranks = [linear.change.reduce.outputs for linear in linears if linear.change is not None]
        self._widths = {
            "normed": 4 * self._hidden,
            "qkv": 4 * first.qkv.weight.outputs,
            "attended": 4 * first.output.weight.columns,
            "both": 4 * first.gate_up.weight.outputs,
            "rounded": 2 * max(one.weight.width for one in first.linears),
            "scales": 4,
            "reduced": 4 * max(ranks, default=0),
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
        adapted: range,
    ) -> None:
        """Bring float32 `hidden` [rows, hidden size] through all layers, in place.

        `rotary` are cosines and sines [rows, dim]; `new_slots` [rows] say where in `keys` and
        `values`, a tensor [capacity, KV heads, dim] for each layer, a row's KV goes. The rows
        `adapted` are computed with the adapter, if the weights have one.
        """
        count = len(hidden)
        pointers = [
            (ctypes.c_void_p * len(part))(*(tensor.data_ptr() for tensor in part))
            for part in (keys, values)
        ]
        heads = self._weights[0].output.weight.columns // self._dim
        step = _Step(
            rows=count,
            hidden=self._hidden,
            adapted_begin=adapted.start,
            adapted_end=adapted.stop,
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


def _layer(weights: LayerWeights) -> _Layer:
    return _Layer(
        attention_norm=weights.attention_norm.data_ptr(),
        mlp_norm=weights.mlp_norm.data_ptr(),
        query_norm=_address(weights.query_norm),
        key_norm=_address(weights.key_norm),
        eps=weights.eps,
        qkv=_linear(weights.qkv),
        output=_linear(weights.output),
        gate_up=_linear(weights.gate_up),
        down=_linear(weights.down),
    )


def _linear(linear: PackedLinear) -> _Linear:
    weight, change = linear.weight, linear.change
    structure = _Linear(
        packed=weight.packed.data_ptr(),
        scales=weight.scales.data_ptr(),
        bias=_address(linear.bias),
        columns=weight.columns,
        outputs=weight.outputs,
    )
    if change is not None:
        structure.change = ctypes.pointer(_low_rank(change))
    return structure


def _low_rank(change: PackedLowRank) -> _LowRank:
    return _LowRank(
        reduce=ctypes.pointer(_linear(PackedLinear(change.reduce, None, None))),
        packed=change.expand.data_ptr(),
        scales=change.scales.data_ptr(),
        bias=_address(change.bias),
        starts=change.starts.data_ptr(),
        width=change.expand.shape[1],
        rank=change.reduce.outputs,
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
