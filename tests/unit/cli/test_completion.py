"""Shell completion, by a real shell."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
SHOW = """
eval "$(constellate --show-completion bash)"
complete -p constellate >&2
COMP_WORDS=(constellate {words}); COMP_CWORD={last}
_constellate_completion constellate
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("exp", ["export"]),
        ("d", ["delete", "diverse", "down", "duplicates"]),
        ("export --f", ["--format"]),
        ("export photos --format p", ["parquet"]),
    ],
)
def test_bash_completes_commands_options_and_values(tmp_path, words, completed):
    command = tmp_path / "constellate"
    command.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c "
        '\'import sys; sys.argv[0] = "constellate"; from serve_app.cli import main; main()\' "$@"\n'
    )
    command.chmod(0o755)
    script = SHOW.format(words=words, last=len(words.split()))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    shown = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "constellate" in shown.stderr
    assert sorted(shown.stdout.split()) == completed
