"""``stoker bench``: how fast is it, honestly."""

from stoker_cli.bench.command import app

__all__ = ["app"]
