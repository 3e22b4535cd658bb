"""The official `openai` client, and its chat completions."""

import os
from typing import Literal

from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel, Field

MODEL = os.environ.get("PLATO_MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")
MESSAGES = [{"role": "user", "content": "How do I choose my first road bicycle?"}]

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
answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=100)
print(answer.choices[0].message.content)
print(answer.usage)

print("--- stream")
for chunk in client.chat.completions.create(
    model=MODEL, messages=MESSAGES, max_tokens=100, stream=True
):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()

print("--- plan")
answer = client.chat.completions.create(
    model=f"{MODEL}:plato",
    messages=MESSAGES,
    max_tokens=150,
    extra_body={"plato": {"headings": True}},
)
print(answer.choices[0].message.content)
for node in answer.plato["graph"]["nodes"]:
    print(node["number"], node["title"], "needs", node["dependencies"], node["tokens"], "tokens")

print("--- structured answer")
parsed = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Bicycle)
print(repr(parsed.choices[0].message.parsed))

print("--- tools offered")
order = pydantic_function_tool(Bicycle, name="order", description="Orders a bicycle.")
answer = client.chat.completions.create(
    model=MODEL, messages=MESSAGES, tools=[order], max_tokens=100
)
print(answer.choices[0].message.content)
print("ignored:", answer.plato["ignored"])

print("--- tool demanded")
parsed = client.chat.completions.parse(
    model=MODEL, messages=MESSAGES, tools=[order], tool_choice="required"
)
called = parsed.choices[0].message.tool_calls[0].function
print(called.name, repr(called.parsed_arguments))
