"""The official `openai` client, and its responses, which can go on without it."""

import os
import time
from typing import Literal

import openai
from openai import OpenAI
from pydantic import BaseModel, Field

MODEL = os.environ.get("PLATO_MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")
QUESTION = "How do I choose my first road bicycle?"

# Responses are those of a key: whoever has another does not find them.
client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "any"),
)


class Bicycle(BaseModel):
    """A bicycle for the question."""

    kind: Literal["road", "mountain", "city"]
    # Small models find no end without a bound.
    brand: str = Field(max_length=20)
    price: int = Field(ge=100, le=9999)


print("--- ask")
response = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=100)
print(response.output_text)

print("--- stream")
with client.responses.stream(model=MODEL, input=QUESTION, max_output_tokens=100) as stream:
    for event in stream:
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
print()

print("--- structured answer")
parsed = client.responses.parse(model=MODEL, input=QUESTION, text_format=Bicycle)
print(repr(parsed.output_parsed))

print("--- tool demanded")
order = openai.pydantic_function_tool(Bicycle, name="order")["function"]
called = client.responses.parse(
    model=MODEL, input=QUESTION, tools=[{"type": "function", **order}], tool_choice="required"
)
print(called.output[0].name, called.output[0].arguments)

print("--- background")
response = client.responses.create(
    model=f"{MODEL}:plato", input=QUESTION, max_output_tokens=150, background=True
)
while response.status == "in_progress":
    time.sleep(0.2)
    response = client.responses.retrieve(response.id)
print(response.status, response.output_text)

print("--- resumed stream")
events = list(client.responses.retrieve(response.id, stream=True, starting_after=20))
print("from event", events[0].sequence_number, "to", events[-1].sequence_number)

print("--- cancel")
response = client.responses.create(model=MODEL, input=QUESTION, background=True)
print(client.responses.cancel(response.id).status)
