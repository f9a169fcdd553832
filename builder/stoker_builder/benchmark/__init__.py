"""Measuring anything that answers: a file, a release, a server; until the figures hold."""
