"""`meerkat-mcp tour`: the README's first command."""

from pathlib import Path

from .conftest import Commands


def test_the_tour_shows_a_session_that_outlives_its_server(meerkat: Commands) -> None:
    seen = meerkat.json("tour", "--keep")
    first, second = seen["turns"]
    assert seen["ok"] and "meerkat_run" in seen["tools"]
    assert "Nice to meet you, Ada." in first["text"] and "Your name is Ada." in second["text"]
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
    assert "» This is the demo model" in done.stdout and "meerkat-mcp serve --realm main" in done.stdout
    assert list(scratch.iterdir()) == []


def test_a_tour_that_fails_says_so(meerkat: Commands) -> None:
    done = meerkat("tour", "--json", TMPDIR=str(meerkat.folder / "nowhere"), MEERKAT_REALM="ignored")
    assert done.returncode == 0, "a TMPDIR that is not there is passed over"
