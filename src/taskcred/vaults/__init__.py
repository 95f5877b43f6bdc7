"""Where key material lives: the embedded vault, OpenBao or HashiCorp Vault."""
