"""Tasks whose right answer is known, over plans of growing complexity."""
