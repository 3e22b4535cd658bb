"""LlamaIndex: `OpenAILike`, over completions (its default) and over chat completions."""

import os
from typing import Literal

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

MODEL = os.environ.get("PLATO_MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")
QUESTION = "How do I choose my first road bicycle?"
SERVER = {
    "api_base": os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    "api_key": os.environ.get("OPENAI_API_KEY", "any"),
    "max_tokens": 100,
}


class Bicycle(BaseModel):
    """A bicycle for the question."""

    kind: Literal["road", "mountain", "city"]
    # Small models find no end without a bound.
    brand: str = Field(max_length=20)
    price: int = Field(ge=100, le=9999)


print("--- continue a text")
print(OpenAILike(model=MODEL, **SERVER).complete("A road bicycle is"))

llm = OpenAILike(model=MODEL, is_chat_model=True, **SERVER)

print("--- ask")
print(llm.complete(QUESTION))

print("--- stream")
for chunk in llm.stream_complete(QUESTION):
    print(chunk.delta, end="", flush=True)
print()

print("--- plan")
print(OpenAILike(model=f"{MODEL}:plato", is_chat_model=True, **SERVER).complete(QUESTION))

# With function calling LlamaIndex demands the call of one function.
calling = OpenAILike(model=MODEL, is_chat_model=True, is_function_calling_model=True, **SERVER)

print("--- structured answer: function calling")
answer = calling.as_structured_llm(Bicycle).chat([ChatMessage(QUESTION)])
print(repr(answer.raw))

print("--- structured answer: json_schema")
enforced = OpenAILike(model=MODEL, is_chat_model=True, should_use_structured_outputs=True, **SERVER)
print(repr(enforced.as_structured_llm(Bicycle).chat([ChatMessage(QUESTION)]).raw))
