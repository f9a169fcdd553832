"""A broker out of the package registry, for a laptop without mosquitto.

MQTT 3.1.1 only, no TLS, no access list, nothing survives a restart: for trying stoker out.
"""

import asyncio
import logging
import signal
import sys

from amqtt.broker import Broker as AmqttBroker

from stoker_cli.broker.ports import LOOPBACK


async def serve(port: int) -> None:
    """Run the broker on a loopback port until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    broker = AmqttBroker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{LOOPBACK}:{port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
            },
        }
    )
    await broker.start()
    await stopped.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve(int(sys.argv[1])))
