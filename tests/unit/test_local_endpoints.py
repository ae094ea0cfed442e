"""What endpoints.json says."""

import json
from pathlib import Path

from streams.local.endpoints import Endpoints


def test_the_file_has_the_contracts_keys(tmp_path: Path):
    """And is whole, with no scratch file beside it."""
    Endpoints("127.0.0.1:9092", "postgresql://early_kill@127.0.0.1:5432/early_kill", ("http://127.0.0.1:6066",), {"kafka": 1, "sink": 2}).write(tmp_path)
    assert json.loads((tmp_path / "endpoints.json").read_text()) == {
        "kafka": "127.0.0.1:9092",
        "database_url": "postgresql://early_kill@127.0.0.1:5432/early_kill",
        "web": ["http://127.0.0.1:6066"],
        "pids": {"kafka": 1, "sink": 2},
    }
    assert [path.name for path in tmp_path.iterdir()] == ["endpoints.json"]
