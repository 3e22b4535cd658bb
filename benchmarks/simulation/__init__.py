"""A pool of decoders in simulated time, and what real messages cost."""
