"""Prompts: chat templates applied to segments, and the layout of node prompts."""

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
