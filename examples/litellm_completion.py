"""litellm: the server is an `openai/` model with an `api_base`."""

import os
from typing import Literal

import litellm
from pydantic import BaseModel, Field

MODEL = "openai/" + os.environ.get("PLATO_MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")
QUESTION = "How do I choose my first road bicycle?"
MESSAGES = [{"role": "user", "content": QUESTION}]
SERVER = {
    "api_base": os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    "api_key": os.environ.get("OPENAI_API_KEY", "any"),
}


class Bicycle(BaseModel):
    """A bicycle for the question."""

    kind: Literal["road", "mountain", "city"]
    # Small models find no end without a bound.
    brand: str = Field(max_length=20)
    price: int = Field(ge=100, le=9999)


ORDER = {
    "type": "function",
    "function": {"name": "order", "parameters": Bicycle.model_json_schema()},
}

print("--- ask")
answer = litellm.completion(MODEL, MESSAGES, max_tokens=100, **SERVER)
print(answer.choices[0].message.content)

print("--- stream")
for chunk in litellm.completion(MODEL, MESSAGES, max_tokens=100, stream=True, **SERVER):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()

print("--- plan")
answer = litellm.completion(
    MODEL,
    MESSAGES,
    max_tokens=150,
    extra_body={"plato": {"mode": "plato", "headings": True}},
    **SERVER,
)
print(answer.choices[0].message.content)

print("--- structured answer")
answer = litellm.completion(MODEL, MESSAGES, response_format=Bicycle, **SERVER)
print(repr(Bicycle.model_validate_json(answer.choices[0].message.content)))

print("--- tools offered, reasoning effort")
answer = litellm.completion(
    MODEL,
    MESSAGES,
    max_tokens=100,
    tools=[ORDER],
    reasoning_effort="low",
    allowed_openai_params=["reasoning_effort"],
    **SERVER,
)
print(answer.choices[0].message.content)

print("--- tool demanded")
answer = litellm.completion(MODEL, MESSAGES, tools=[ORDER], tool_choice="required", **SERVER)
print(answer.choices[0].message.tool_calls[0].function)

print("--- responses")
response = litellm.responses(QUESTION, MODEL, max_output_tokens=100, **SERVER)
print(response.output[0].content[0].text)

print("--- continue a text")
text = litellm.text_completion(
    model=f"text-completion-{MODEL}", prompt="A road bicycle is", max_tokens=50, **SERVER
)
print(text.choices[0].text)
