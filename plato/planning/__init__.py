"""The plan language: grammar, incremental parser, planning prompt, and the planner itself."""
