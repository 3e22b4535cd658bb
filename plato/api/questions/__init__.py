"""From the body of a request to a run: schemas, checks, limits of size."""
