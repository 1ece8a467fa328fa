"""Writing and forgetting, as ratios to the same work without the service."""
