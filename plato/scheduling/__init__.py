"""The graph scheduler, placement and admission. Sees engines and stores only through protocols."""
