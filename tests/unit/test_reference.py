"""docs/reference.md is what the settings class says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streams.reference import render, variable
from streams.settings import Settings

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_the_generated_one():
    """`make reference` writes it; a setting that was added or changed has to be there."""
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == render()


def test_every_setting_has_a_line_with_a_description():
    """One line each, no cell empty."""
    rows = [line.strip("|\n").split(" | ") for line in render().splitlines() if line.startswith("| `")]
    assert len(rows) == len(Settings.model_fields)
    assert all(cell.strip() for row in rows for cell in row)


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch):
    """A value under the name on the page reaches the field that the line is about."""
    schemas = Settings.model_json_schema(by_alias=False)["properties"]
    for name, field in Settings.model_fields.items():
        monkeypatch.setenv(variable(name, field), _another(name, schemas[name], field.default))
    settings = Settings(_env_file=None)
    assert [name for name, field in Settings.model_fields.items() if getattr(settings, name) == field.default] == []


def _another(name: str, schema: dict[str, Any], default: object) -> str:
    """A value for a setting that is allowed and not its default."""
    if name == "database_url":
        return "postgresql://elsewhere/other"
    if "enum" in schema:
        return next(value for value in schema["enum"] if value != default)
    match schema.get("type"):
        case "array":
            return '["another"]'
        case "boolean":
            return str(not default)
        case "integer" | "number":
            bounds = [schema[bound] for bound in ("minimum", "maximum") if bound in schema]
            return str(next((bound for bound in bounds if bound != default), schema.get("minimum", 0) + 1))
    return "another"
