"""The connection to the broker: a session that is kept, and nothing decided."""
