"""OpenAI's chat completions and older completions."""
