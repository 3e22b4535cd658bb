"""LangChain: `ChatOpenAI`, over chat completions and over responses."""

import os
from typing import Literal

from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

MODEL = os.environ.get("PLATO_MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")
QUESTION = "How do I choose my first road bicycle?"
SERVER = {
    "base_url": os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    "api_key": os.environ.get("OPENAI_API_KEY", "any"),
}

chat = ChatOpenAI(model=MODEL, max_tokens=100, **SERVER)


class Bicycle(BaseModel):
    """A bicycle for the question."""

    kind: Literal["road", "mountain", "city"]
    # Small models find no end without a bound.
    brand: str = Field(max_length=20)
    price: int = Field(ge=100, le=9999)


print("--- ask")
print(chat.invoke(QUESTION).content)

print("--- stream")
for chunk in chat.stream(QUESTION):
    print(chunk.content, end="", flush=True)
print()

print("--- plan")
planned = ChatOpenAI(model=f"{MODEL}:plato", max_tokens=150, **SERVER)
print(planned.invoke(QUESTION).content)

for method in ("json_schema", "function_calling"):
    print(f"--- structured answer: {method}")
    print(repr(chat.with_structured_output(Bicycle, method=method).invoke(QUESTION)))

print("--- structured answer: json_mode")
asked = f"{QUESTION} Answer in JSON: kind (road, mountain or city), brand, price (a number)."
# Nothing but the model ends the object, so it gets room for that.
roomy = ChatOpenAI(model=MODEL, max_tokens=600, **SERVER)
loose = roomy.with_structured_output(Bicycle, method="json_mode", include_raw=True)
# Only the prompt has the fields: the answer is JSON, and fits if the model obeys.
outcome = loose.invoke(asked)
print(repr(outcome["parsed"] or outcome["parsing_error"]))

print("--- tools offered")
print(chat.bind_tools([Bicycle]).invoke(QUESTION).content)

print("--- tool demanded")
print(chat.bind_tools([Bicycle], tool_choice="any").invoke(QUESTION).tool_calls)

print("--- responses")
print(
    ChatOpenAI(model=MODEL, max_tokens=100, use_responses_api=True, **SERVER).invoke(QUESTION).text
)
