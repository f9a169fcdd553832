"""Decides. No I/O, no clock, no logging: time and randomness come in as arguments."""
