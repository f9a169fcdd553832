"""``stoker inspect``: what is in a release, a manifest or an ONNX file."""

from stoker_cli.inspect.command import app

__all__ = ["app"]
