"""The context store: node outputs, run state and KV handles, in Redis or Valkey."""
