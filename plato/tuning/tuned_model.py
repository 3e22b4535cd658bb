"""A model with a LoRA adapter whose weights are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from plato.engine.errors import ModelNotSupportedError
from plato.errors import ModelError
from plato.tuning.options import TuneOptions

Weights = dict[str, torch.Tensor]
"""By parameter."""


def load_untuned(folder: Path, device: torch.device) -> Any:
    """The model in `folder`, of transformers. Raises `ModelError`."""
    from transformers import AutoModelForCausalLM

    from plato.engine.torch.transformers_model import refuse_unsupported

    # On CPUs the fused kernel takes several times as long for the gradients of short sequences.
    attention = "eager" if device.type == "cpu" else "sdpa"
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=torch.float32, attn_implementation=attention
        )
        refuse_unsupported(model.config.get_text_config(), model)
    except ModelNotSupportedError as error:
        raise ModelError(str(error)) from error
    except Exception as error:
        raise ModelError(f"the model in {folder} cannot be loaded: {error}") from error
    return model.to(device).eval()


def with_adapter(model: Any, options: TuneOptions, initial: Path | None) -> Any:
    """`model` with a new adapter, or the one in `initial`. Raises `ModelError`."""
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(options.seed)
    if initial is None:
        config = LoraConfig(
            r=options.rank,
            lora_alpha=2 * options.rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, config)
    try:
        return PeftModel.from_pretrained(model, str(initial), is_trainable=True)
    except Exception as error:
        raise ModelError(f"{initial} is not an adapter of this model: {error}") from error


def trained_weights(model: Any) -> Weights:
    """Copies of the adapter's weights, on the CPU."""
    return {
        name: weight.detach().cpu().clone()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


@torch.no_grad()
def set_weights(model: Any, weights: Weights) -> None:
    """Set the weights that are in `weights`."""
    own = dict(model.named_parameters())
    for name, weight in weights.items():
        own[name].copy_(weight)


def as_stored(weights: Weights, kept: float) -> Weights:
    """`weights` with the fraction `kept` of the change that they make, rounded to bfloat16."""
    return {
        name: (weight * kept if "lora_B" in name else weight).bfloat16().float()
        for name, weight in weights.items()
    }
