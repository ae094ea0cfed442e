"""Files that nobody ever sees half of."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Put a file there by rename: who reads it sees the old one or the new one, whole. Its directory is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arriving = path.with_name(f".{path.name}.new")
    arriving.write_text(text, encoding="utf-8")
    arriving.replace(path)
