"""The report beside a release: everything that was measured, for people and for machines."""
