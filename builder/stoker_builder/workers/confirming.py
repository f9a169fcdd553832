"""A broker that goes away while a job is built must not leave a worker deaf.

While a job is on, a worker asks for no other, and so does not see that the connection is dead. When
it then confirms the job in vain, Celery logs that and never asks for anything again. Here a
confirmation that failed ends the connection, and the worker makes another one.
"""

from typing import Any, ClassVar, Final

from celery.worker.request import Request

_LOOK_S: Final = 0.5


class ConfirmedRequest(Request):  # type: ignore[misc]  # Celery has no types
    """A message whose confirmation is looked after.

    Attributes:
        hub: the loop of this process's worker, kombu's; set when the worker is ready. What kombu
            calls the current loop is None after the first connection that was lost.
    """

    hub: ClassVar[Any] = None

    def acknowledge(self) -> None:
        """Confirm the message."""
        super().acknowledge()
        self._look()

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002  Celery's signature
        """Give the message back, or throw it away."""
        super().reject(requeue)
        self._look()

    def _look(self) -> None:
        # Celery confirms in the next turn of its loop
        if self.hub is not None:
            self.hub.call_later(_LOOK_S, self._check)

    def _check(self) -> None:
        if not self.message.acknowledged:
            msg = "the broker did not take a confirmation"
            raise ConnectionResetError(msg)
