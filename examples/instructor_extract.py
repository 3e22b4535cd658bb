"""instructor: each of its modes for servers that speak OpenAI's protocol."""

import os
from typing import Literal

import instructor
from instructor.core import InstructorError
from openai import OpenAI
from pydantic import BaseModel, Field

MODEL = os.environ.get("PLATO_MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")
MESSAGES = [{"role": "user", "content": "Which bicycle should I buy as my first road bicycle?"}]

openai = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "any"),
)


class Bicycle(BaseModel):
    """A bicycle for the question."""

    kind: Literal["road", "mountain", "city"]
    # Small models find no end without a bound.
    brand: str = Field(max_length=20)
    price: int = Field(ge=100, le=9999)


for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
    print(f"--- structured answer: {mode.name}")
    client = instructor.from_openai(openai, mode=mode)
    print(repr(client.create(model=MODEL, messages=MESSAGES, response_model=Bicycle)))

print("--- structured answer: JSON")
# Only the prompt has the schema: the answer is JSON, and fits if the model obeys.
client = instructor.from_openai(openai, mode=instructor.Mode.JSON)
try:
    bicycle = client.create(
        model=MODEL, messages=MESSAGES, response_model=Bicycle, max_retries=1, max_tokens=100
    )
    print(repr(bicycle))
except InstructorError as error:
    print("the model did not obey:", error)
