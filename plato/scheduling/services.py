"""The services that all runs of a scheduler share."""

from __future__ import annotations

from dataclasses import dataclass

from plato.metrics import Recorder
from plato.planning.protocol import Planner
from plato.prompting.model_tools import ModelTools
from plato.scheduling.leases import LeaseKeeper
from plato.scheduling.node_decoder import NodeDecoder
from plato.scheduling.stream_interval import StreamInterval
from plato.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """Handed to every run; owned by the scheduler."""

    settings: Settings
    model: ModelTools
    planner: Planner
    decoder: NodeDecoder
    leases: LeaseKeeper
    stream_interval: StreamInterval
    recorder: Recorder
    losses: tuple[str, ...] = ()
    """What is lost on the engines; see `plato.engine.losses`."""
