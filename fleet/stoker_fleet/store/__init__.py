"""What the controller knows, in SQLite."""
