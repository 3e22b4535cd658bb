r"""Grammars as tables of rules, and their notation for different decoders.

A table maps names to rules; `start` is the whole text. A rule with an upper-case name is a
terminal: Lark decoders match it as one regular expression, the longest match wins, and nothing in
it may be recursive. The other notations treat it like any rule.

Notations: llguidance's Lark (https://github.com/guidance-ai/llguidance, docs/syntax.md), GBNF of
llama.cpp (grammars/README.md) and regular expressions. `gbnf` writes only what xgrammar's EBNF
(https://xgrammar.mlc.ai, "EBNF Grammar") has in common with GBNF, so one text serves both: of the
escapes, `\n`, `\"`, `\\`, `\uXXXX` and `\UXXXXXXXX` mean the same in all of these notations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

START = "start"


@dataclass(frozen=True, slots=True)
class Literal:
    """This text."""

    text: str


@dataclass(frozen=True, slots=True)
class Characters:
    """One character in any of the ranges, which are first and last code points."""

    ranges: tuple[tuple[int, int], ...]
    excluded: bool = False
    """One character outside all ranges instead, newlines included."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """The items one after another."""

    items: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the options."""

    options: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The item, `low` to `high` times."""

    item: Rule
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Reference:
    """The rule of this name."""

    name: str


Rule = Literal | Characters | Sequence | Choice | Repeat | Reference
Rules = Mapping[str, Rule]


def sequence(*items: Rule | str) -> Sequence:
    """The items one after another; a string is a literal."""
    return Sequence(tuple(_rule(item) for item in items))


def choice(*options: Rule | str) -> Rule:
    """One of the options; a string is a literal."""
    rules = tuple(_rule(option) for option in options)
    return rules[0] if len(rules) == 1 else Choice(rules)


def optional(*items: Rule | str) -> Repeat:
    """The items, or nothing."""
    return Repeat(sequence(*items), 0, 1)


def lark(rules: Rules) -> str:
    """The grammar in llguidance's dialect of Lark."""
    regex, notation = _Regex(rules), _Lark()
    return "\n".join(
        f"{name}: " + (f"/{regex.write(rule)}/" if name.isupper() else notation.write(rule))
        for name, rule in rules.items()
    )


def gbnf(rules: Rules) -> str:
    """The grammar in GBNF, for llama.cpp; also valid as EBNF for xgrammar."""
    notation = _Gbnf()
    return "\n".join(
        f"{notation.reference(name)} ::= {notation.write(rule)}" for name, rule in rules.items()
    )


def regex(rules: Rules) -> str:
    """The language as a regular expression without anchors, for Python, Rust and the like.

    References are expanded, so no rule may refer to itself.
    """
    return _Regex(rules).write(Reference(START))


class _Notation:
    """Writes rules. Subclasses say how their notation differs from this common core."""

    space = " "
    """Between the items of a sequence."""
    group = "("

    def write(self, rule: Rule, *, unit: bool = False) -> str:
        """Write `rule`; with `unit`, so that an operator after it applies to all of it."""
        match rule:
            case Literal():
                return self.literal(rule.text, unit=unit)
            case Characters():
                return self.characters(rule)
            case Reference():
                return self.reference(rule.name, unit=unit)
            case Repeat():
                bounds = "?" if (rule.low, rule.high) == (0, 1) else f"{{{rule.low},{rule.high}}}"
                return self._grouped(self.write(rule.item, unit=True) + bounds, unit)
            case Sequence():
                items = (self.write(item, unit=isinstance(item, Choice)) for item in rule.items)
                return self._grouped(self.space.join(items), unit)
            case Choice():
                options = (self.write(option) for option in rule.options)
                return self._grouped(f"{self.space}|{self.space}".join(options), unit)

    def literal(self, text: str, *, unit: bool) -> str:
        return '"' + "".join(_escaped(char, '"\\') for char in text) + '"'

    def characters(self, rule: Characters) -> str:
        ranges = (
            _coded(chr(first)) if first == last else f"{_coded(chr(first))}-{_coded(chr(last))}"
            for first, last in rule.ranges
        )
        return f"[{'^' if rule.excluded else ''}{''.join(ranges)}]"

    def reference(self, name: str, *, unit: bool = False) -> str:
        return name

    def _grouped(self, text: str, unit: bool) -> str:
        return f"{self.group}{text})" if unit else text


class _Gbnf(_Notation):
    def reference(self, name: str, *, unit: bool = False) -> str:
        return "root" if name == START else name


class _Lark(_Notation):
    def characters(self, rule: Characters) -> str:
        return f"/{super().characters(rule)}/"


class _Regex(_Notation):
    space = ""
    group = "(?:"

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def literal(self, text: str, *, unit: bool) -> str:
        escaped = "".join(_escaped(char, r".^$*+?{}[]\|()/") for char in text)
        return self._grouped(escaped, unit and len(text) != 1)

    def reference(self, name: str, *, unit: bool = False) -> str:
        rule = self._rules[name]
        # In place of a reference, a choice must not take in what surrounds it.
        return self.write(rule, unit=unit or isinstance(rule, Choice))


def _rule(item: Rule | str) -> Rule:
    return Literal(item) if isinstance(item, str) else item


def _escaped(char: str, special: str) -> str:
    """A character of a literal; only `special` ones and those that do not print are escaped."""
    if char in special:
        return f"\\{char}"
    if char == "\n":
        return "\\n"
    return char if char.isprintable() else _coded(char)


def _coded(char: str) -> str:
    """A character by its code, as all notations have it."""
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
