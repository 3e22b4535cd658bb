"""What the endpoints for answers share: responses, streams, and what they say of a run."""
