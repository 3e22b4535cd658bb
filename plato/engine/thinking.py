"""Models that think before they answer, and how they are kept from it."""

NO_THINKING = {"enable_thinking": False, "thinking": False}
"""What chat templates call it (Qwen, GLM and SmolLM; Granite, DeepSeek and Kimi)."""
BEGIN_THINKING, END_THINKING = "<think>", "</think>"
