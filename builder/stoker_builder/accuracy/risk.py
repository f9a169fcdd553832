"""How the risk of one wrong PASS is spent on the candidates of a target, one after the other.

Trying many candidates must not make one pass by luck, and dividing the risk by their number
makes each of them pay for the others. The fallback procedure of Wiens and Dmitrienko (2005)
does better where one is expected to win: the candidates are put in an order *before* any of
them sees the certification samples, the favourite first; it gets most of the risk, the others
share what is left, and a candidate that passes hands its part on to the next, since nothing
was risked on it in vain. The probability that any lossy candidate passes stays within the
whole, however many there are and however alike their answers.
"""

from typing import Final

_FAVOURITE: Final = 0.8  # of the risk, when there are others


class Risk:
    """The risk that is left, for one target.

    Args:
        total: probability that any candidate passes that should not; 0.05, say.
        candidates: how many are going to be judged, in an order that the certification
            samples had no part in.
    """

    def __init__(self, total: float, candidates: int) -> None:
        if not 0 < total <= 0.5:  # noqa: PLR2004  a coin would do as well
            msg = f"risk is {total}; it must be above 0 and at most 0.5"
            raise ValueError(msg)
        if candidates < 1:
            msg = f"candidates is {candidates}; at least one is being judged"
            raise ValueError(msg)
        self.total = total
        self.candidates = candidates
        self._judged = 0
        self._handed_on = 0.0

    @property
    def next_alpha(self) -> float:
        """What the next candidate may risk.

        Raises:
            ValueError: all candidates that were announced have been judged.
        """
        if self._judged == self.candidates:
            msg = f"{self.candidates} candidates were announced, and all of them were judged"
            raise ValueError(msg)
        return self._own_share * self.total + self._handed_on

    def settle(self, *, passed: bool) -> None:
        """Say what became of that candidate, before asking for the next."""
        self._handed_on = self.next_alpha if passed else 0.0
        self._judged += 1

    @property
    def _own_share(self) -> float:
        if self.candidates == 1:
            return 1.0
        return _FAVOURITE if self._judged == 0 else (1 - _FAVOURITE) / (self.candidates - 1)
