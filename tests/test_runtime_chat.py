"""The whole pipeline in front of a server with chat completions only: Plato's own endpoint.

The model behind that is a script, so that its plans are sensible.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from plato.api.app import new_app
from plato.engine import Scores
from plato.errors import PlatoError
from plato.runtime import Runtime
from plato.settings import Settings
from tests.engine.upstream.http import HttpServer
from tests.engine.upstream.scripted import ScriptedServer, byte_tokenizer, says

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PLAN = (("Solar power", ()), ("Wind power", ()), ("The choice", (1, 2)))
LINES = "1 | Solar power | -\n2 | Wind power | -\n3 | The choice | 1,2\n[END]"
JSON = json.dumps({"parts": [{"title": title, "needs": list(needs)} for title, needs in PLAN]})


class Model(ScriptedServer):
    """Plans in the form that it is asked for, and writes a sentence for each part."""

    def __init__(self) -> None:
        super().__init__(reply=self._reply)
        self.models["data"][0]["max_model_len"] = 2000
        self.prompts: list[str] = []

    def _reply(self, body: dict[str, Any]) -> Any:
        prompt = bytes(body["prompt"]).decode()
        self.prompts.append(prompt)
        if '"parts"' in prompt:
            return says(JSON)
        if "[END]" in prompt:
            return says(LINES)
        if "structured_outputs" in body:
            return says('{"colour":"red"}')
        return says("A sentence on it.")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A model's folder without weights."""
    byte_tokenizer().backend.save(str(tmp_path / "tokenizer.json"))
    names = {"eos_token": "</s>", "chat_template": TEMPLATE}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    config = {"model_type": "llama", "max_position_embeddings": 2048}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    model = Model()
    await model.http.start()
    yield model
    await model.http.stop()


def settings(folder: str, url: str, **fields: Any) -> Settings:
    return Settings(
        model=folder,
        engine="openai",
        upstreams=(url,),
        upstream_start_s=5.0,
        temperature=0.0,
        lease_ttl_s=60,
        **fields,
    )


@pytest.fixture
async def url(folder: str, model: Model) -> AsyncIterator[str]:
    """Of Plato in front of the model."""
    asked = settings(folder, model.http.url, served_model_name="inner")
    async with await Runtime.open(asked) as runtime:
        http = HttpServer(new_app(runtime.service, asked))
        await http.start()
        yield http.url
        await http.stop()


@pytest.fixture(params=[None, "none"], ids=["json", "lines"])
async def runtime(request: pytest.FixtureRequest, folder: str, url: str) -> AsyncIterator[Runtime]:
    """Plato in front of Plato, with plans under a JSON schema and without any grammar."""
    asked = settings(folder, url, upstream_model="inner:sequential", upstream_grammar=request.param)
    async with await Runtime.open(asked) as runtime:
        yield runtime


async def ask(runtime: Runtime, **options: Any) -> Any:
    async with asyncio.timeout(20):
        return await runtime.ask("Solar or wind?", **options)


async def test_what_the_server_can_do_is_found_out(runtime: Runtime) -> None:
    (engine,) = runtime.engines.values()
    can = engine.capabilities
    assert engine.stats().dtype == "chat"
    assert (can.token_ids, can.scores, can.resumption) == (False, Scores.NONE, False)
    expected = {"json_schema"} if runtime.settings.upstream_grammar is None else set()
    assert can.grammars == expected


async def test_a_planned_answer_is_written_from_messages(runtime: Runtime, model: Model) -> None:
    answer = await ask(runtime, plato={"mode": "plato"})
    assert answer.report.reason is None
    assert tuple((node.title, node.dependencies) for node in answer.report.nodes) == PLAN
    assert answer.text == "\n\n".join(["A sentence on it."] * 3)
    assert model.prompts[-1] == (
        "<user>Solar or wind?\n\nWrite one short paragraph about: Solar power.\n"
        "<assistant>A sentence on it.\n"
        "<user>Wind power:\nA sentence on it.\n\nWrite one short paragraph about: The choice.\n"
        "<assistant>"
    )


async def test_auto_answers_in_one_piece_and_says_why(runtime: Runtime) -> None:
    answer = await ask(runtime, max_tokens=600)
    assert answer.text == "A sentence on it."
    assert answer.report.reason == "not split: the engine reports no log probabilities"


async def test_an_answer_in_json_is_one_or_is_refused(runtime: Runtime) -> None:
    schema = {"type": "object", "properties": {"colour": {"enum": ["red"]}}}
    form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}}
    if runtime.settings.upstream_grammar is None:
        assert (await ask(runtime, response_format=form)).text == '{"colour":"red"}'
    else:
        with pytest.raises(PlatoError, match="cannot decode under this grammar"):
            await ask(runtime, response_format=form)
