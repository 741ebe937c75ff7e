"""Integrations with other tools: callbacks of Lightning and transformers, and pytest fixtures."""
