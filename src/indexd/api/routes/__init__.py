"""The routes, grouped by task."""
