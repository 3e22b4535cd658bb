"""A pool of decoders in simulated time, and the measured cost of messages."""
