"""From a graph and finished outputs to token ids: chat templates by segment, and layouts."""
