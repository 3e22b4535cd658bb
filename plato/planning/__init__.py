"""Plans: decoded as outlines by the planner, or given by callers in the plan language."""
