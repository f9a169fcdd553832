"""HTML and SVG that can not be broken by what is written into it. Pure.

Whatever is no :class:`Markup` is text of somebody else and is escaped; only :func:`tag` makes
``Markup``.
"""

import html
from collections.abc import Iterable
from typing import Final

_VOID: Final = frozenset({"meta", "br", "hr"})

Attribute = str | float | None


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(words: str) -> Markup:
    """Escape text, unless it is markup."""
    if isinstance(words, Markup):
        return words
    shown = "".join(letter if letter.isprintable() or letter in "\n\t" else "�" for letter in words)
    return Markup(html.escape(shown, quote=True))


def join(parts: Iterable[str]) -> Markup:
    """Several pieces, one after the other."""
    return Markup("".join(text(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: Attribute) -> Markup:
    """An element.

    Args:
        name: of the element.
        children: text or markup.
        attributes: an underscore at the end is dropped (``class_``), others become dashes;
            None leaves the attribute out, numbers are rounded to what a screen can show.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return text(value)
    return f"{value:.2f}".rstrip("0").rstrip(".")
