"""``stoker diff``: what changed between two releases, or two ONNX files."""

from stoker_cli.diff.command import app

__all__ = ["app"]
