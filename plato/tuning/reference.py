"""Reference answers: what the untuned model writes, for the penalty that keeps it."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from plato.models.progress import Progress
from plato.tuning.checkpoint import write_whole
from plato.tuning.examples import Example
from plato.tuning.samples import Sample, SampleBuilder, Skill


def draw_prompts(
    builder: SampleBuilder, examples: Iterable[Example], count: int, seed: int
) -> list[tuple[int, ...]]:
    """Up to `count` prompts, as tokens, that the model shall continue as before.

    Those of examples that teach nothing else come first: their forms are more various.
    """
    prompts: dict[bool, set[tuple[int, ...]]] = {True: set(), False: set()}
    for example in examples:
        prompts[example.is_ordinary].update(builder.ordinary(example))
    draw = random.Random(seed)
    found: list[tuple[int, ...]] = []
    for some in (prompts[True], prompts[False] - prompts[True]):
        found += draw.sample(sorted(some), min(count - len(found), len(some)))
    return found


def write_answers(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    end_tokens: Collection[int],
    file: Path,
    run_id: Mapping[str, Any],
    *,
    max_tokens: int,
    batch: int,
    progress: Progress,
) -> list[Sample]:
    """The untuned model's continuations, sampled.

    Args:
        model: of transformers, untuned.
        prompts: as tokens.
        end_tokens: those that end an answer.
        file: keeps the answers for a run that resumes.
        run_id: what else the answers depend on: the model, the seed as `seed`.
        max_tokens: of each answer.
        batch: number of answers that are written at the same time.
        progress: called after every batch.
    """
    digest = blake2b(repr((prompts, max_tokens)).encode(), digest_size=8).hexdigest()
    made_for = {**run_id, "prompts": digest}
    answers: list[list[int]] = []
    if file.is_file():
        kept = json.loads(file.read_bytes())
        if kept["made_for"] == made_for:
            answers = kept["answers"]
    while len(answers) < len(prompts):
        torch.manual_seed(run_id["seed"] + len(answers))
        some = prompts[len(answers) : len(answers) + batch]
        answers += _continue(model, some, end_tokens, max_tokens)
        write_whole(file, json.dumps({"made_for": made_for, "answers": answers}).encode())
        progress(f"Writing answer {len(answers)} of {len(prompts)}", 0.0)
    return [
        Sample.writing(Skill.ANSWER, prompt, answer)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


@torch.inference_mode()
def _continue(
    model: Any, prompts: Sequence[tuple[int, ...]], end_tokens: Collection[int], max_tokens: int
) -> list[list[int]]:
    """Sampled continuations, each up to its end token."""
    length = max(map(len, prompts))
    gaps = [length - len(prompt) for prompt in prompts]
    ids = [(0,) * gap + prompt for gap, prompt in zip(gaps, prompts, strict=True)]
    mask = [(0,) * gap + (1,) * (length - gap) for gap in gaps]
    out = model.generate(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=max_tokens,
        do_sample=True,
        temperature=0.8,
        top_p=0.95,
        pad_token_id=0,
        eos_token_id=sorted(end_tokens),
    )
    found = []
    for row in out[:, length:].tolist():
        end = next((n for n, token in enumerate(row) if token in end_tokens), len(row) - 1)
        found.append(row[: end + 1])
    return found
