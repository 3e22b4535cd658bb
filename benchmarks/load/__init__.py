"""Questions that arrive whether or not earlier ones are answered, and what that costs each way."""
