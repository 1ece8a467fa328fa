"""The `where` language of filters: `tree` parses it, `conditions` compiles it to SQL."""
