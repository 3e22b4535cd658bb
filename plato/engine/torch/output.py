"""From a sampled token to the chunk that reports it."""

from __future__ import annotations

from collections.abc import Callable, Set

from plato.engine.protocol import Chunk, FinishReason, Load
from plato.engine.torch.grammar import Matcher
from plato.engine.torch.sampling import Choice, Draw
from plato.engine.torch.sequence import Sequence


def draw(sequence: Sequence) -> Draw:
    """Sampling input for the next token of `sequence`."""
    request = sequence.request
    return Draw(
        request.sampling,
        request.node,
        sequence.output,
        mask=None if sequence.matcher is None else sequence.matcher.mask(),
        score=() if sequence.output else request.score,
    )


def take(
    sequence: Sequence,
    choice: Choice,
    end_tokens: Set[int],
    forced: Callable[[Matcher], list[int]],
) -> int:
    """Append a token and those that the grammar forces after it; returns their number.

    A request's script replaces the sampled token. Sets the finish reason if the tokens end the
    sequence; stop strings are checked in `release_text`. Raises `RequestRefusedError` if the
    grammar cannot be followed.
    """
    if choice.error is not None:
        raise choice.error
    if not sequence.output:
        sequence.scores = choice.scores
    before = len(sequence.output)
    script = sequence.request.script
    token = script[before] if before < len(script) else choice.token
    sequence.steps += 1
    sequence.append([token])
    if token in end_tokens and sequence.request.stop.end_tokens:
        sequence.finish = FinishReason.STOP
    elif sequence.matcher is not None:
        sequence.matcher.consume([token])
        fits = sequence.append(forced(sequence.matcher))
        if fits and sequence.matcher.complete:
            sequence.finish = FinishReason.STOP
    return len(sequence.output) - before


def release_text(sequence: Sequence) -> str:
    """Text completed by the tokens not reported yet; sets the finish reason if it ends here."""
    text = sequence.text.push(sequence.tokens[sequence.reported :])
    if sequence.text.stopped:
        sequence.finish = FinishReason.STOP
    elif sequence.finish is None and _is_long_enough(sequence, text):
        sequence.finish = FinishReason.LENGTH
    if sequence.finish is not None:
        text += sequence.text.flush()
    return text


def _is_long_enough(sequence: Sequence, text: str) -> bool:
    """Whether the budget is used up, or almost, and new `text` ends a sentence."""
    length, start = len(sequence.output), sequence.request.stop.sentence_from
    if length >= sequence.request.max_tokens:
        return True
    return start is not None and length >= start and bool(text) and sequence.text.ends_sentence


def next_chunk(sequence: Sequence, text: str, replica: str, epoch: str, load: Load) -> Chunk:
    """The chunk with everything not reported yet; marks it as reported."""
    new = tuple(sequence.tokens[sequence.reported :])
    offset = sequence.reported - sequence.prompt_length
    sequence.reported = len(sequence.tokens)
    return Chunk(
        run_id=sequence.request.run_id,
        node=sequence.request.node,
        attempt=sequence.request.attempt,
        offset=offset,
        tokens=new,
        text=text,
        finish=sequence.finish,
        prompt_tokens=sequence.prompt_length,
        cached_tokens=sequence.cached_tokens,
        replica=replica,
        epoch=epoch,
        load=load,
        scores=sequence.scores if offset == 0 else (),
        steps=sequence.steps,
    )
