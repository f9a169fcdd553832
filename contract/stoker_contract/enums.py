"""``StrEnum`` for Python 3.10, which runs the engine worker on JetPack 6."""

import sys

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from enum import Enum

    class StrEnum(str, Enum):
        """The part of ``enum.StrEnum`` that the contract uses."""

        __str__ = str.__str__


__all__ = ["StrEnum"]
