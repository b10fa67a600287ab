"""The model factory: YAML architecture → checked spec → torch module."""
