"""What text of a model looks like while it is unfinished."""

from __future__ import annotations

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes the bytes of an unfinished character to."""
