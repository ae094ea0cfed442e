"""The least that an answer to a deciding interaction can cost: consume all records, produce one for each that decides. A process of its own.

    .venv/bin/python -m benchmarks.echo 127.0.0.1:9092 echo_in echo_out

Plain aiokafka, nothing decoded, nothing kept. Prints ``ready`` once it reads, from the end of the topic on, and runs until SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.feed import DECIDES

ENDING = f'{DECIDES}"}}'.encode()
"""How the value of a deciding interaction ends."""


async def echo(bootstrap: str, source: str, sink: str) -> None:
    """Answer the deciding interactions on ``source`` with a record on ``sink``."""
    consumer = AIOKafkaConsumer(source, bootstrap_servers=bootstrap, auto_offset_reset="latest", enable_auto_commit=False, max_partition_fetch_bytes=4 << 20)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await consumer.start()
    await producer.start()
    await consumer.seek_to_end(*consumer.assignment())
    for tp in consumer.assignment():
        await consumer.position(tp)  # found out now, not at the first fetch
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        while True:
            for tp, records in (await consumer.getmany(timeout_ms=1_000)).items():
                for record in records:
                    if record.value.endswith(ENDING):
                        answer = {"deciding_event": {"partition": tp.partition, "offset": record.offset}}
                        await producer.send(sink, json.dumps(answer).encode(), key=record.key)
    finally:
        await consumer.stop()
        await producer.stop()


async def _until_told(bootstrap: str, source: str, sink: str) -> None:
    echoing = asyncio.ensure_future(echo(bootstrap, source, sink))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, echoing.cancel)
    try:
        await echoing
    except asyncio.CancelledError:
        return


if __name__ == "__main__":
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of every retry on a topic that was made just now
    asyncio.run(_until_told(*sys.argv[1:4]))
