"""From a graph and finished outputs to token ids: chat templates by segment, and layouts."""

from plato.prompting.template import ChatTemplate, Turn
from plato.prompting.tokenizer import Tokenizer
from plato.prompting.transcript import (
    NodePrompt,
    NodeText,
    TranscriptConversation,
    TranscriptLayout,
)

__all__ = [
    "ChatTemplate",
    "NodePrompt",
    "NodeText",
    "Tokenizer",
    "TranscriptConversation",
    "TranscriptLayout",
    "Turn",
]
