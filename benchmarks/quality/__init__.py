"""How good answers are: measured without a judge, and by blinded comparison."""
