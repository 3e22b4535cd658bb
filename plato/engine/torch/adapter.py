"""Loads a LoRA adapter in PEFT's format (arXiv 2106.09685), to be applied to single rows."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors.torch import load_file
from torch import nn

from plato.engine.errors import EngineError
from plato.engine.fingerprint import ADAPTER_WEIGHTS
from plato.engine.torch.kernels import LowRank
from plato.engine.torch.low_rank import AdaptedLinear, AdaptedRows

KEEPS_WEIGHTS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` with which PEFT leaves the model's own weights as they are."""


class PeftAdapter:
    """A model to which PEFT has applied an adapter, in place, for all rows.

    Supported are low-rank changes of linear layers, with any ranks and scalings, and of their
    biases.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        """Raises `EngineError` if it is of another model, or cannot be applied to single rows."""
        self._model = model
        # By name, without the adapter; PEFT overwrites them.
        self._biases = {
            name: module.bias.detach().clone()
            for name, module in model.named_modules()
            if isinstance(getattr(module, "bias", None), torch.Tensor)
        }
        try:
            _check_config(PeftConfig.from_pretrained(str(folder)))
            with warnings.catch_warnings():
                # PEFT asks for it by a name that transformers has deprecated.
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
                self._peft = PeftModel.from_pretrained(model, str(folder)).eval()
            self._check_layers()
            own = set(get_peft_model_state_dict(self._peft, save_embedding_layers=False))
            others = own ^ load_file(folder / ADAPTER_WEIGHTS).keys()
            if others:
                raise ValueError(f"it is for a model with other layers ({min(others)})")
        except Exception as error:
            raise EngineError(
                f"the adapter in {folder} cannot be applied to this model: {error}"
            ) from error

    @torch.inference_mode()
    def apply_to_rows(self, step: AdaptedRows) -> None:
        """Take the adapter out of the model again, and wrap the layers that it changes."""
        changes = {
            name: _change(layer)
            for name, layer in self._model.named_modules()
            if isinstance(layer, LoraLinear)
        }
        self._peft.unload()
        for name, layer in list(self._model.named_modules()):
            change = _with_bias(changes.get(name), layer, self._biases.get(name))
            if change is not None:
                parent, _, child = name.rpartition(".")
                wrapped = AdaptedLinear(layer, change, step)
                setattr(self._model.get_submodule(parent), child, wrapped)

    def _check_layers(self) -> None:
        """Raise `ValueError` if other layers are changed than linear ones between the ends."""
        ends = (self._model.get_input_embeddings(), self._model.get_output_embeddings())
        for name, layer in self._model.named_modules():
            changed = isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper)
            if changed and (type(layer) is not LoraLinear or layer.lora_variant or layer in ends):
                raise _not_by_row(f"it changes {name} in a way that is not for single rows")
            linear = isinstance(layer, nn.Linear | LoraLinear) and layer not in ends
            before = None if linear else self._biases.get(name)
            if before is not None and not torch.equal(before, layer.bias):
                raise _not_by_row(f"it changes the bias of {name}")


def _check_config(config: PeftConfig) -> None:
    """Raise `ValueError` if this kind of adapter is more than changes of low rank."""
    if not isinstance(config, LoraConfig):
        raise _not_by_row(f"it is of type {config.peft_type}, not LoRA")
    if config.layer_replication:
        raise _not_by_row("it replicates layers")
    if config.init_lora_weights not in KEEPS_WEIGHTS:
        raise _not_by_row(f"init_lora_weights is {config.init_lora_weights!r}")


def _not_by_row(reason: str) -> ValueError:
    return ValueError(
        f"{reason}, and prompts with and without the adapter share the model's weights; merge it "
        "into the weights, and leave the adapter out"
    )


def _change(layer: LoraLinear) -> LowRank:
    """The change of a layer without that of its own bias, in the type of the layer's weight."""
    (name,) = layer.active_adapters
    # Any, because modules do not annotate their parameters.
    reduce: Any = layer.lora_A[name]
    expand: Any = layer.lora_B[name]
    scaling: float = layer.scaling[name]
    dtype = layer.weight.dtype
    bias = None if expand.bias is None else (expand.bias * scaling).to(dtype)
    return LowRank(reduce.weight.to(dtype), (expand.weight * scaling).to(dtype), bias)


def _with_bias(change: LowRank | None, layer: Any, before: torch.Tensor | None) -> LowRank | None:
    """The change with that of the layer's own bias, which becomes what it was `before`."""
    if before is None or torch.equal(before, layer.bias):
        return change
    bias = layer.bias - before
    layer.bias.copy_(before)
    if change is None:
        outputs, inputs = layer.weight.shape
        return LowRank(bias.new_zeros(1, inputs), bias.new_zeros(outputs, 1), bias)
    return replace(change, bias=bias if change.bias is None else change.bias + bias)
