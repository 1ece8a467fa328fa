"""The service under load: overload, soak, chaos, and what authentication and embedders cost."""
