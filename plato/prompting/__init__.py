"""From a graph and finished outputs to token ids: chat templates by segment, and layouts."""

from plato.prompting.layout import Conversation, Layout, NodePrompt, NodeText
from plato.prompting.template import ChatTemplate, Turn
from plato.prompting.tokenizer import Tokenizer
from plato.prompting.transcript import TranscriptLayout

__all__ = [
    "ChatTemplate",
    "Conversation",
    "Layout",
    "NodePrompt",
    "NodeText",
    "Tokenizer",
    "TranscriptLayout",
    "Turn",
]
