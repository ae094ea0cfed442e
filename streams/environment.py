"""The settings of this process, or one clear line that says which variable is wrong. Imports what reads them only when they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.errors import Stop

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from streams.settings import Settings


def load_settings() -> Settings:
    """Read the settings from the environment and ``.env``.

    Raises:
        Stop: A variable has a wrong value; names it, never the value.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from streams.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        raise Stop(_wrong_settings(error)) from None
    except SettingsError as error:
        raise Stop(_unread_setting(error)) from None
    except (UnicodeDecodeError, OSError) as error:
        raise Stop(f".env cannot be read: {error}") from None


def _wrong_settings(error: ValidationError) -> str:
    from streams.settings import Settings

    problems = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(problem["loc"][0]) if problem["loc"] else "a setting"
        field = Settings.model_fields.get(name.lower())
        variable = name.upper() if field is None or field.validation_alias is not None else f"EARLY_KILL_{name.upper()}"
        problems.append(f"{variable}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(problems)


def _unread_setting(error: SettingsError) -> str:
    """Say which list is no JSON: pydantic's text names the field only, and in quotes."""
    from streams.settings import Settings

    field = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), None)
    return str(error).replace("\n", " ") if field is None else f"EARLY_KILL_{field.upper()}: must be a JSON list"
