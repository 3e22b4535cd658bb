"""GBNF as Lark, for tests: llguidance reads only that."""

from __future__ import annotations

import re

from llguidance.gbnf_to_lark import gbnf_to_lark


def to_lark(gbnf: str) -> str:
    """By llguidance's converter, which drops leading zeros of escapes."""
    converted: str = gbnf_to_lark(gbnf)
    for letter, digits in (("u", 4), ("U", 8)):
        padded = rf"\\{letter}{{:0>{digits}}}"
        converted = re.sub(
            rf"(?<!\\)((?:\\\\)*)\\{letter}([0-9a-f]*)",
            lambda found, form=padded[1:]: found[1] + form.format(found[2]),
            converted,
        )
    return converted
