"""Measurements on their way up."""
