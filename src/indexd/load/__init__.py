"""How much work is taken on: admission, concurrency limit, rate limit, latency budget."""
