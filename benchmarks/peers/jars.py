"""The jars of Kafka Streams: ``python -m benchmarks.peers.jars`` fetches them, checked against the hashes in ``kafka-streams-jars.txt``; the broker's own are there already."""

from __future__ import annotations

import sys
from pathlib import Path

from models.errors import Stop
from streams.local import fetch as broker

DIRECTORY = Path(__file__).parents[2] / "build" / "bench" / "jars"


def listed() -> list[broker.Jar]:
    """Return the jars that are needed beside the broker's, as the project pins them."""
    return broker.parse(Path(__file__).with_name("kafka-streams-jars.txt").read_text(encoding="utf-8"))


def are_there() -> bool:
    """Whether all have been fetched."""
    return all((DIRECTORY / jar.filename).is_file() for jar in listed())


def classpath() -> str:
    """Return the class path of a program that uses Kafka Streams.

    Raises:
        Stop: The broker's jars have not been fetched yet.
    """
    return ":".join([broker.classpath(), *(str(DIRECTORY / jar.filename) for jar in listed())])


def compiler() -> Path:
    """Return the Java compiler, itself a jar: so no JDK is needed."""
    return next(DIRECTORY / jar.filename for jar in listed() if jar.artifact == "ecj")


if __name__ == "__main__":
    try:
        broker.fetch(DIRECTORY, listed())
    except (Stop, OSError) as problem:
        sys.exit(f"error: {problem}")
