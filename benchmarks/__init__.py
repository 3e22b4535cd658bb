"""One module a question that people ask of such a system."""
