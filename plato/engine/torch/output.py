"""From the token that was chosen for a sequence to the chunk that reports it."""

from __future__ import annotations

from collections.abc import Set

from plato.engine.protocol import Chunk, FinishReason, Load
from plato.engine.torch.sampling import Choice, Draw
from plato.engine.torch.sequence import Sequence


def draw(sequence: Sequence) -> Draw:
    """What the next token of `sequence` is drawn for."""
    request = sequence.request
    return Draw(
        request.sampling,
        request.node,
        sequence.output,
        mask=None if sequence.matcher is None else sequence.matcher.mask(),
        alternatives=0 if sequence.output else request.report_first,
    )


def take(sequence: Sequence, choice: Choice, end_tokens: Set[int], *, forced: bool) -> int:
    """Append a token and (if `forced`) those that the grammar forces behind it; returns how many.

    A request's script stands in for what was chosen.

    Sets the sequence's finish reason if it has ended by that, whatever its text says. Raises
    `RequestRefusedError` if the grammar cannot be followed.
    """
    if choice.error is not None:
        raise choice.error
    if not sequence.output:
        sequence.first = choice.alternatives
    before = len(sequence.output)
    script = sequence.request.script
    token = script[before] if before < len(script) else choice.token
    sequence.steps += 1
    sequence.append([token])
    if token in end_tokens and sequence.request.stop.end_tokens:
        sequence.finish = FinishReason.STOP
    elif sequence.matcher is not None:
        sequence.matcher.consume([token])
        fits = not forced or sequence.append(sequence.matcher.forced())
        if fits and sequence.matcher.complete:
            sequence.finish = FinishReason.STOP
    return len(sequence.output) - before


def release_text(sequence: Sequence) -> str:
    """The text that the tokens not reported yet complete; looks for the end of the sequence."""
    text = sequence.text.push(sequence.tokens[sequence.reported :])
    if sequence.text.stopped:
        sequence.finish = FinishReason.STOP
    elif sequence.finish is None and len(sequence.output) >= sequence.request.max_tokens:
        sequence.finish = FinishReason.LENGTH
    if sequence.finish is not None:
        text += sequence.text.flush()
    return text


def next_chunk(sequence: Sequence, text: str, replica: str, epoch: str, load: Load) -> Chunk:
    """The chunk with all that is new; what it carries counts as reported."""
    new = tuple(sequence.tokens[sequence.reported :])
    offset = sequence.reported - sequence.prompt_length
    sequence.reported = len(sequence.tokens)
    return Chunk(
        run=sequence.request.run,
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
        first=sequence.first if offset == 0 else (),
        steps=sequence.steps,
    )
