"""A fleet of booted systems: the proof of the whole, run by ``scripts/e2e``."""
