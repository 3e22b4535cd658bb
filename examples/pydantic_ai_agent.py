"""pydantic-ai: an agent, and each way of it to get structured output."""

import asyncio
import os
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput, UnexpectedModelBehavior
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

NAME = os.environ.get("PLATO_MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")
QUESTION = "How do I choose my first road bicycle?"
SHORT = {"max_tokens": 100}

server = OpenAIProvider(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "any"),
)
model = OpenAIChatModel(NAME, provider=server)


class Bicycle(BaseModel):
    """A bicycle for the question."""

    kind: Literal["road", "mountain", "city"]
    # Small models find no end without a bound.
    brand: str = Field(max_length=20)
    price: int = Field(ge=100, le=9999)


def price(kind: str) -> int:
    """The price of a bicycle of this kind."""
    return {"road": 1200}.get(kind, 600)


async def stream() -> None:
    """Print an answer as it comes."""
    async with Agent(model).run_stream(QUESTION, model_settings=SHORT) as result:
        async for text in result.stream_text(delta=True):
            print(text, end="", flush=True)
    print()


print("--- ask")
print(Agent(model).run_sync(QUESTION, model_settings=SHORT).output)

print("--- stream")
asyncio.run(stream())

print("--- plan")
planned = OpenAIChatModel(f"{NAME}:plato", provider=server)
print(Agent(planned).run_sync(QUESTION, model_settings={"max_tokens": 150}).output)

for form in (ToolOutput, NativeOutput):
    print(f"--- structured answer: {form.__name__}")
    print(repr(Agent(model, output_type=form(Bicycle)).run_sync(QUESTION).output))

print("--- structured answer: PromptedOutput")
# Only the prompt has the schema: the answer is JSON, and fits if the model obeys.
prompted = Agent(model, output_type=PromptedOutput(Bicycle), model_settings=SHORT)
try:
    print(repr(prompted.run_sync(QUESTION).output))
except UnexpectedModelBehavior as error:
    print("the model did not obey:", error)

print("--- tools offered")
print(Agent(model, tools=[price]).run_sync(QUESTION, model_settings=SHORT).output)

print("--- responses")
responses = OpenAIResponsesModel(NAME, provider=server)
print(Agent(responses).run_sync(QUESTION, model_settings=SHORT).output)
