"""`meerkat-mcp tour`: the README's first command."""

import subprocess
import sys
from pathlib import Path

from .conftest import Commands


def test_the_tour_shows_a_session_that_outlives_its_server(meerkat: Commands) -> None:
    seen = meerkat.json("tour", "--keep")
    first, second = seen["turns"]
    assert seen["ok"]
    assert "meerkat_run" in seen["tools"]
    assert "Nice to meet you, Ada." in first["text"]
    assert "Your name is Ada." in second["text"]
    assert seen["replayed_seqs"] == [1, *seen["live_seqs"]]
    assert len(set(seen["processes"])) == 2
    kept = Path(seen["state_root"])
    assert (kept / "tour" / "realm_manifest.json").exists()
    for path in sorted(kept.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    kept.rmdir()
    assert not meerkat.state_root.exists()


def test_the_tour_tells_what_it_does_and_leaves_nothing(meerkat: Commands) -> None:
    scratch = meerkat.folder / "tmp"
    scratch.mkdir()
    done = meerkat("tour", TMPDIR=str(scratch), TMP=str(scratch), TEMP=str(scratch))
    assert done.returncode == 0, done.stderr
    assert "» This is the demo model" in done.stdout
    assert "meerkat-mcp serve --realm main" in done.stdout
    assert list(scratch.iterdir()) == []


def test_a_tour_whose_server_does_not_start_fails_and_says_so(meerkat: Commands) -> None:
    silent = [sys.executable, "-c", "raise SystemExit('no server here')"]
    code = (
        "import sys; from meerkat_mcp.cli import main, tour\n"
        f"tour.server_words = lambda state_root: {silent!r}\n"
        "sys.exit(main(['tour', '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=meerkat.folder,
        env=meerkat.environment,
        capture_output=True,
        encoding="utf-8",
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "no server here" in done.stderr
    assert "The tour did not go as it should" in done.stderr
