"""Where key material lives: the embedded vault."""
