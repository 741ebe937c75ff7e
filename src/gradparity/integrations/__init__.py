"""Where other tools meet gradparity: a Lightning callback, a pytest plugin, and ``assert_parity`` for any test."""
