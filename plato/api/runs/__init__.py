"""`/v1/runs`: runs as objects, their events, and lists."""
