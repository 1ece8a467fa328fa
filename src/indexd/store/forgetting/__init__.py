"""Every way a document leaves: deletion, forget and its plans, retention, relevance, audit."""
