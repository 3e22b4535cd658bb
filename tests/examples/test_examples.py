"""The examples that need no package of their own; `make clients` runs those of all clients."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from plato.runtime import Runtime
from plato.settings import Settings
from tests.serving import serving

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
async def test_every_step_of_the_examples_has_an_outcome(tiny_model_folder: str) -> None:
    settings = Settings(
        model=tiny_model_folder, served_model_name="tiny", kv_budget_mb=16, lease_ttl_s=10
    )
    async with (
        await Runtime.open(settings) as runtime,
        serving(runtime.service, settings) as url,
        asyncio.timeout(100),
    ):
        for runner, example in (
            (sys.executable, "openai_chat.py"),
            (sys.executable, "openai_responses.py"),
            ("bash", "curl.sh"),
        ):
            process = await asyncio.create_subprocess_exec(
                *(runner, str(EXAMPLES / example)),
                stdout=subprocess.PIPE,
                env={**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "PLATO_MODEL": "tiny"},
            )
            output, _ = await process.communicate()
            assert process.returncode == 0
            _, *steps = re.split("^--- ", output.decode(), flags=re.MULTILINE)
            outcomes = dict(step.split("\n", 1) for step in steps)
            assert [name for name, outcome in outcomes.items() if not outcome.strip()] == []
            assert {"stream", "structured answer", "tool demanded"} <= outcomes.keys()
