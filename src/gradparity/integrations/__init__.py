"""Integrations with other tools: a Lightning callback, a pytest plugin, and ``assert_parity`` for any test."""
