"""Searches: exactness and speed under decay, with filters, by many clients, by words."""
