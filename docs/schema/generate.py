"""JSON Schemas of the documents that cross a machine boundary, generated from the contract."""

import json
from pathlib import Path
from typing import Final

from stoker_contract.control import Request, Response
from stoker_contract.desired import Desired
from stoker_contract.document import Document
from stoker_contract.engine import SlotFile
from stoker_contract.manifest import Manifest
from stoker_contract.reported import Get, Notice, Presence, Reported
from stoker_contract.status import StatusEvent
from stoker_contract.telemetry import Telemetry

DOCUMENTS: Final[dict[str, type[Document]]] = {
    "control-request": Request,
    "control-response": Response,
    "desired": Desired,
    "get": Get,
    "manifest": Manifest,
    "notice": Notice,
    "presence": Presence,
    "reported": Reported,
    "slot-file": SlotFile,
    "status-event": StatusEvent,
    "telemetry": Telemetry,
}


def schemas() -> dict[str, str]:
    """The text of every schema file, by file name."""
    return {f"{name}.json": _schema(name, kind) for name, kind in DOCUMENTS.items()}


def _schema(name: str, kind: type[Document]) -> str:
    schema = kind.model_json_schema()
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:stoker:v1:{name}",
    }
    return json.dumps(head | schema, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all schema files beside this one."""
    here = Path(__file__).parent
    for stale in here.glob("*.json"):
        stale.unlink()
    for name, text in schemas().items():
        (here / name).write_text(text)


if __name__ == "__main__":
    main()
