"""Titles: the rules that decoded titles follow, and what is wrong with a title."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

from plato.planning.rules import Characters, Repeat, Rule, choice, optional, sequence

WORD_CHARS = 24
"""Maximum length of a word in a decoded title; one that long was probably cut there."""
SPACELESS_FACTOR = 2
"""A title in a script without spaces may be so many times as long as a word."""

_JOINTS = ((0x2D, 0x2D), (0x2F, 0x2F))
"""Hyphen and slash."""
_SYMBOLS = (
    *((0xD7, 0xD7), (0xF7, 0xF7), (0x1680, 0x1680), (0x2190, 0x2BFF), (0x2E00, 0x3004)),
    *((0x3008, 0x3020), (0x3030, 0x3030), (0xE000, 0xF8FF), (0xFE00, 0xFE6F), (0xFEFF, 0xFF0F)),
    *((0xFF1A, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFF65), (0xFFE0, 0xFFFF), (0x1F000, 0x1FAFF)),
)
"""What no title needs beyond ASCII, by blocks (symbols, emoji, private use), since only some
notations know Unicode's categories."""
_NO_LETTER = (
    *((0x00, 0x40), (0x5B, 0x60), (0x7B, 0xA9), (0xAB, 0xB4), (0xB6, 0xB9), (0xBB, 0xBF)),
    *((0x2000, 0x218F), *_SYMBOLS),
)
"""What is no letter of any script, ASCII's digits included; marks are among the letters."""
_NOT_INSIDE = (
    *((0x00, 0x22), (0x24, 0x25), (0x28, 0x2A), (0x2C, 0x2F), (0x3A, 0x40), (0x5B, 0x60)),
    *((0x7B, 0xA9), (0xAB, 0xB4), (0xB6, 0xB9), (0xBB, 0xBF)),
    *((0x2000, 0x200B), (0x200E, 0x2018), (0x201A, 0x218F), *_SYMBOLS),
)
"""Inside a word stand digits, too, apostrophes, the `#`, `+` and `&` of "C#" and "R&D", and the
joiners (U+200C, U+200D) that some scripts need."""

_SPACELESS = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3021, 0x302F)),
    *((0x3031, 0x30FF), (0x3400, 0x9FFF), (0x20000, 0x323AF)),
)
"""Letters of scripts without spaces: Thai, Lao, Burmese, Khmer, Japanese and Chinese."""

_LETTER = Characters(_NO_LETTER, excluded=True)
_INSIDE = Characters(_NOT_INSIDE, excluded=True)
_DIGIT = Characters(((0x30, 0x39),))


def title_of_words(max_words: int, max_word_chars: int = WORD_CHARS) -> Rule:
    """A title of 2 to `max_words` words of up to `max_word_chars` characters.

    One word without a number says too little: parts on "Influence", "Impact" and "Implications"
    say the same. In scripts that write no spaces it may be a whole title. A word begins with a
    letter, and a number stands only before a word or at the end: small models that know nothing to
    say count ("mechanism,1,2,3"). Between words is a space, a hyphen or a slash, and there is no
    other punctuation, with which small models turn titles into sentences. So the bound ends a title
    after a word, unless the word itself is too long.
    """
    between = choice(" ", Characters(_JOINTS))
    rest = Repeat(_INSIDE, 0, max_word_chars - 1)
    word = sequence(_LETTER, rest)
    spaceless = sequence(
        Characters(_SPACELESS), Repeat(_INSIDE, 0, SPACELESS_FACTOR * max_word_chars - 1)
    )
    number = sequence(Repeat(_DIGIT, 1, 4), Repeat(_LETTER, 0, 2))
    following = sequence(between, optional(number, between), word)
    ending = optional(between, number)
    return choice(
        sequence(optional(number, between), word, Repeat(following, 1, max_words - 1), ending),
        sequence(number, between, word, ending),
        sequence(word, between, number),
        sequence(spaceless, Repeat(following, 0, max_words - 1), ending),
    )


_OPEN_WORDS = frozenset({"a", "an", "the", "and", "or"})
"""English words that no phrase ends with. Prepositions do end phrases: "What to look for"; so does
"Vitamin A"."""


def is_debris(title: str) -> bool:
    """Whether a title that the grammar allows is no title: what small models write when they loop.

    Debris has no letters or the same word three times in a row, or ends with an English article,
    "and" or "or".
    """
    words, last = _words(title), title.split()[-1]
    return (
        not any(char.isalpha() for char in title)
        or any(len(set(words[place : place + 3])) == 1 for place in range(len(words) - 2))
        or (last != "A" and last.casefold() in _OPEN_WORDS)
    )


LOOP = 4
"""So many titles in a row that differ in one word are a loop: "Editing DNA", "Editing RNA", ..."""


def refusal(title: str, earlier: Sequence[str], max_words: int) -> str | None:
    """Why a decoded title is not taken, after these `earlier` ones; None if it is.

    The grammar allows one word more, so a title that needs it would have gone on.
    """
    if is_debris(title):
        return "no title"
    parts = [word for word in re.split("[ /-]", title) if not word[:1].isdigit()]
    longest = WORD_CHARS if len(parts) > 1 else SPACELESS_FACTOR * WORD_CHARS
    if len(parts) > max_words or any(len(word) >= longest for word in parts):
        return "too long"
    words = _words(title)
    if any(set(words) == set(_words(other)) for other in earlier):
        return "repeated"
    last = [_words(other) for other in earlier[-LOOP + 1 :]]
    if len(last) == LOOP - 1 and len(words) > 1 and all(_one_differs(words, w) for w in last):
        return "a loop"
    return None


def _words(title: str) -> list[str]:
    # As the grammar has them: `\w` does not match the vowel signs of Indic scripts.
    return re.split("[ /-]", title.casefold())


def _one_differs(words: Sequence[str], other: Sequence[str]) -> bool:
    return len(words) == len(other) and sum(map(operator.ne, words, other)) == 1
