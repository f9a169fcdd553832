"""``stoker build``: from a model to a release."""

from stoker_cli.build.command import app

__all__ = ["app"]
