"""The process that quantises: orders come in, a line each; what came of each goes out.

Started by :mod:`stoker_builder.candidates.crew`.
"""

import contextlib
import json
import os
import sys

from stoker_builder.candidates.orders import Order
from stoker_builder.candidates.quantise import carry_out
from stoker_builder.errors import BuildError


def main() -> None:
    """Carry out every order; a file that can not be made is told of, and is no reason to end."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    with contextlib.redirect_stdout(sys.stderr):  # tools may print what they like
        for line in sys.stdin:
            answer: dict[str, str] = {}
            try:
                carry_out(Order.parse(line))
            except BuildError as error:
                answer = {"code": error.code, "detail": error.detail, "hint": error.hint}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
