"""Kafka's jars: fetched once (``python -m streams.local.fetch``), checked against the hashes in ``kafka-jars.txt``, used offline ever after."""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from models.errors import Stop

TRIES = 4
PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Jar:
    """One file of the list: its Maven coordinates and the SHA-256 of its bytes (hex)."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """The file's name, in a Maven repository as in ours."""
        return f"{self.artifact}-{self.version}.jar"

    def matches(self, path: Path) -> bool:
        """Whether the file at ``path`` is this jar, byte for byte."""
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256
        except OSError:
            return False


def listed() -> list[Jar]:
    """The jars that Kafka needs, as the project pins them."""
    return parse(files("streams.local").joinpath("kafka-jars.txt").read_text(encoding="utf-8"))


def parse(text: str) -> list[Jar]:
    """Read a list of jars: ``sha256 group:artifact:version`` a line, ``#`` before comments."""
    return [_parse(line) for line in text.splitlines() if line and not line.startswith("#")]


def jar_directory() -> Path:
    """Where the jars live: inside this Python's environment, so that removing it removes them."""
    return Path(sys.prefix, "share", "early-kill", "kafka")


def classpath(directory: Path | None = None) -> str:
    """Kafka's class path.

    Raises:
        Stop: A jar is missing; they have not been fetched yet.
    """
    home = directory or jar_directory()
    paths = [home / jar.filename for jar in listed()]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise Stop(f"Kafka's jars are not installed ({len(missing)} of {len(paths)} missing in {home}): run `make install`, or `{sys.executable} -m streams.local.fetch`")
    return ":".join(map(str, paths))


def fetch(directory: Path | None = None, jars: Sequence[Jar] | None = None) -> int:
    """Bring every missing or damaged jar, from the local Maven cache if it is there, else from Maven's central repository.

    Args:
        directory: Where to; ``jar_directory()`` when None.
        jars: Which; those that Kafka needs when None.

    Returns:
        How many jars were fetched; 0 if all were there.

    Raises:
        Stop: A jar could not be had, or is not the one that was pinned.
    """
    home = directory or jar_directory()
    wanted = [jar for jar in (listed() if jars is None else jars) if not jar.matches(home / jar.filename)]
    if wanted:
        home.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda jar: _fetch_one(jar, home), wanted))
    return len(wanted)


def _parse(line: str) -> Jar:
    sha256, coordinates = line.split()
    group, artifact, version = coordinates.split(":")
    return Jar(group, artifact, version, sha256)


def _fetch_one(jar: Jar, home: Path) -> None:
    problem = ""
    for _ in range(TRIES):
        with tempfile.TemporaryDirectory(dir=home, prefix=".fetch-") as scratch:
            try:
                found = _resolve(jar, Path(scratch))
            except Exception as error:  # noqa: BLE001 -- jgo and requests raise whatever they like; the last one is told
                problem = str(error)
                continue
            if jar.matches(found):
                arrived = Path(scratch, jar.filename)
                shutil.copyfile(found, arrived)
                arrived.replace(home / jar.filename)
                return
            problem = "its SHA-256 is not the pinned one"
    raise Stop(f"cannot fetch {jar.group}:{jar.artifact}:{jar.version}: {problem}")


def _resolve(jar: Jar, scratch: Path) -> Path:
    from jgo.constants import default_maven_repo  # slow to import, and needed at installation only
    from jgo.maven import MavenContext

    cached: Path = default_maven_repo().joinpath(*jar.group.split("."), jar.artifact, jar.version, jar.filename)
    if jar.matches(cached):
        return cached
    context = MavenContext(repo_cache=scratch / "repository", timeout=60)
    path: Path = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
    return path


def main() -> int:
    """Fetch what is missing; say so on stderr. Returns the exit code."""
    logging.getLogger("jgo").setLevel(logging.CRITICAL)
    try:
        fetched = fetch()
    except (Stop, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Kafka: {len(listed())} jars in {jar_directory()} ({fetched} fetched)", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
