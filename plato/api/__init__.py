"""OpenAI's and our own wire formats (pydantic), and server-sent events."""
