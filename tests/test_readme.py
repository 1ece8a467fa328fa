"""The README's commands do what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.test_serve import serving

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

CHANGING = {"at", "latency_ms", "ingested_at", "plan_id", "expires_at", "event_id"}
"""Keys whose values differ from run to run; those shown are compared by type."""


class Step(NamedTuple):
    commands: str
    kind: str | None
    shown: str


def steps() -> list[Step]:
    """Each shell block with the output shown below it."""
    found = re.findall(r"```sh\n(.*?)```\n(?:```(json|text)\n(.*?)```)?", README, re.DOTALL)
    return [Step(*parts) for parts in found]


def settled(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: type(inner).__name__ if key in CHANGING else settled(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [settled(inner) for inner in value]
    # Scores that fade do so while the test runs, by less than this.
    return round(value, 4) if isinstance(value, float) else value


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the README speaks curl")
def test_the_shell_blocks_answer_what_is_shown(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(tmp_path, "--data-dir", str(data)) as (client, _):
        environ = {
            **os.environ,
            "INDEXD_DATA_DIR": str(data),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        assert len(steps()) >= 6
        for step in steps():
            commands = step.commands.replace("http://localhost:8080", str(client.base_url))
            outcome = subprocess.run(
                ["bash", "-euc", commands.replace("curl ", "curl -sS --fail-with-body ")],
                env=environ,
                capture_output=True,
                text=True,
                check=False,
            )
            assert outcome.returncode == 0, outcome.stdout + outcome.stderr
            if step.kind == "json":
                assert settled(json.loads(outcome.stdout)) == settled(json.loads(step.shown))
            elif step.kind == "text":
                assert outcome.stdout == step.shown
