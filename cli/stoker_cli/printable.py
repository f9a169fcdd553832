"""Text of others on our terminal."""


def printable(text: str) -> str:
    """Text that somebody else wrote, without what would steer the terminal it is shown on."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
