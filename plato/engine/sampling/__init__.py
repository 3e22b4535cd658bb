"""From logits to tokens, for engines that sample themselves: `torch` and `vllm`.

`sampler` chooses the tokens of a batch, `distribution` filters and draws, `matcher` follows
grammars.
"""
