"""The client of an IBM-shaped identity provider: exchange, verify, and the management of keys."""
