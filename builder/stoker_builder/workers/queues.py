"""The broker: one queue for each class, and nothing in it but the ids of jobs.

A message only wakes a worker. It may be lost, repeated or made up by somebody; the store knows
which jobs there are. Redis is what is tested; any broker of Celery's should do.
"""

import re
from typing import Any, Final

from celery import Celery
from kombu.exceptions import KombuError, OperationalError

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.workers.dispatch import WakeError

TASK: Final = "stoker.build"
VISIBILITY_S: Final = 3600
_CONNECT_S: Final = 5
_LOST_S: Final = 1.0  # until a process that has ended without a word is believed to be gone
_JOB_ID: Final = re.compile(r"[0-9a-f]{32}")


def queue_of(hardware_class: str) -> str:
    """The queue that the workers of a class listen to."""
    return f"build.{hardware_class}"


def is_job_id(value: object) -> bool:
    """Whether a message carries what it should."""
    return isinstance(value, str) and _JOB_ID.fullmatch(value) is not None


def make_app(broker: str, *, visibility_s: float = VISIBILITY_S) -> Celery:
    """What both ends know of the broker.

    Args:
        broker: its URL; ``rediss://`` is encrypted.
        visibility_s: Redis gives a message to another worker when the first has not confirmed it
            for so long. The store's leases are shorter, and decide.

    Raises:
        BuildError: ``BUILD_SERVICE``, the URL is none of a broker.
    """
    app = Celery("stoker-builds", broker=broker, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_ignore_result=True,
        # confirmed when the job is done, and given back when the process that did it dies
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_lost_wait=_LOST_S,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,  # nobody on the broker steers a worker
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_CONNECT_S,
        broker_transport_options={
            "visibility_timeout": visibility_s,
            "unacked_restore_interval": min(visibility_s, 10.0),
            "socket_connect_timeout": _CONNECT_S,
            "socket_keepalive": True,
        },
    )
    _check_url(app)
    return app


class CeleryWaker:
    """Wakes the workers of a class through the broker."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def wake(self, hardware_class: str, job_id: str) -> None:
        """Send the id of a job.

        Raises:
            WakeError: the broker did not take it.
        """
        options: dict[str, Any] = {"queue": queue_of(hardware_class), "retry": False}
        try:
            self._app.send_task(TASK, args=[job_id], ignore_result=True, **options)
        except (KombuError, OperationalError, OSError, ValueError) as error:
            msg = f"the broker does not take messages: {error}"
            raise WakeError(msg) from None


def _check_url(app: Celery) -> None:
    try:
        connection = app.connection_for_write()
        _ = connection.port, connection.transport
    except (KeyError, ValueError, ImportError) as error:
        detail = f"this is no URL of a broker: {error.args[0]}"
        hint = "write redis://host:6379/0, or rediss:// for one with TLS"
        raise BuildError(BuildCode.BUILD_SERVICE, detail, hint) from None
