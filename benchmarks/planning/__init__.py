"""How good plans are: their dependencies, their titles, and the decision to split."""
