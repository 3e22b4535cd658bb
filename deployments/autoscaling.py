"""Autoscaling of decoders: by tokens waiting and decoding, not by requests.

A request can be ten tokens or ten thousand. Decoders report their load with Serve's autoscaling
metrics; the policy is arithmetic over them, so it never blocks the controller.
"""

from __future__ import annotations

import math
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from plato.engine import Load
from plato.settings import Settings

USUAL_OUTPUT = 128
"""Assumed remaining output of a sequence, in tokens; token budgets are much larger."""
TOKENS = "tokens"
"""Name of the metric that decoders report."""


def token_load(load: Load) -> dict[str, float]:
    """The load of a decoder: prompt tokens to compute plus tokens to decode."""
    decoding = USUAL_OUTPUT * (load.running + load.waiting)
    return {TOKENS: float(load.prefill_tokens + decoding)}


def by_tokens(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Autoscaling policy for decoders, with Serve's signature of custom policies."""
    reported = (context.aggregated_metrics or {}).get(TOKENS) or {}
    target = context.config.target_ongoing_requests if context.config is not None else None
    wanted = decoders_for(
        sum(reported.values()),
        # Serve has a single target per replica; here it is a number of tokens.
        target or USUAL_OUTPUT,
        context.capacity_adjusted_min_replicas,
        context.capacity_adjusted_max_replicas,
    )
    return wanted, context.policy_state


def decoders_for(tokens: float, target: float, least: int, most: int) -> int:
    """Number of decoders with at most `target` tokens each, within bounds."""
    return max(least, min(most, math.ceil(tokens / target)))


def decoder_scaling(settings: Settings) -> dict[str, Any]:
    """Options of the decoder deployment: a fixed number of replicas, or autoscaling."""
    if settings.max_decoders is None:
        return {"num_replicas": settings.decoder_count}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=settings.decoders,
            max_replicas=settings.max_decoders,
            target_ongoing_requests=float(settings.decoder_tokens),
            policy=AutoscalingPolicy(policy_function=by_tokens),
            metrics_interval_s=1.0,
            look_back_period_s=5.0,
            upscale_delay_s=settings.upscale_delay_s,
            downscale_delay_s=settings.downscale_delay_s,
        )
    }
