"""TOML, also on the Python 3.10 of JetPack 6, which has no ``tomllib``."""

import sys

if sys.version_info >= (3, 11):
    from tomllib import TOMLDecodeError, loads
else:
    from tomli import TOMLDecodeError, loads


__all__ = ["TOMLDecodeError", "loads"]
