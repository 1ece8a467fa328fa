"""Work beside the requests: index keeper, key cache, exposure buffer, gauges."""
