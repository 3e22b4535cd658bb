"""The built-in engine: any causal language model of transformers, on one KV tree."""
