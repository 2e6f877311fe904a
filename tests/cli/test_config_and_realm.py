"""`meerkat-mcp config` and `meerkat-mcp realm` in real processes."""

import json

from .conftest import Commands


def test_config_is_read_set_and_patched_with_generations(meerkat: Commands) -> None:
    assert meerkat("config", "get").stdout == "{}\n"
    assert not meerkat.state_root.exists()
    assert meerkat("config", "set", "--json", '{"agent": {"model": "demo"}}').returncode == 0
    changed = meerkat.json(
        "config", "patch", "--json", '{"budget": {"max_tokens": 50000}}', "--expected-generation", "1"
    )
    assert changed["generation"] == 2
    done = meerkat("config", "get", "--format", "json", "--with-generation")
    said = json.loads(done.stdout)
    assert said["config"] == {"agent": {"model": "demo"}, "budget": {"max_tokens": 50000}}
    assert {"generation", "realm_id", "instance_id", "backend", "resolved_paths"} < set(said)
    assert meerkat.json("config", "get") == said["config"]
    assert meerkat.json("config", "get", "--effective")["limits"]["wait_seconds"] == 45.0


def test_a_stale_change_is_a_conflict(meerkat: Commands) -> None:
    meerkat("config", "set", "--json", "{}")
    done = meerkat("--json", "config", "patch", "--json", '{"agent": {}}', "--expected-generation", "7")
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, done.stdout) == (5, "")
    assert (error["code"], error["expected"], error["current"]) == ("generation_conflict", 7, 1)


def test_the_document_comes_from_a_file_or_stdin_too(meerkat: Commands) -> None:
    (meerkat.folder / "config.json").write_text('{"agent": {"max_steps": 7}}', encoding="utf-8")
    assert meerkat("config", "set", "--json", "@config.json").returncode == 0
    assert meerkat("config", "set", "config.json").returncode == 0
    assert meerkat("config", "patch", "--json", "-", stdin='{"agent": {"max_steps": 8}}').returncode == 0
    assert meerkat.json("config", "get") == {"agent": {"max_steps": 8}}


def test_a_wrong_document_says_what_is_wrong(meerkat: Commands) -> None:
    unknown = meerkat("config", "set", "--json", '{"agnt": {}}')
    assert (unknown.returncode, "did you mean 'agent'?" in unknown.stderr) == (2, True)
    assert "holds no JSON" in meerkat("config", "set", "--json", "{oops").stderr
    assert "takes a JSON object" in meerkat("config", "set", "--json", "[1]").stderr
    assert "cannot be read" in meerkat("config", "set", "nowhere.json").stderr


def test_each_folder_has_its_realm_unless_one_is_named(meerkat: Commands) -> None:
    here = meerkat.json("realm", "current")
    (meerkat.folder / "inner").mkdir()
    inner = meerkat.json("realm", "current", "--context-root", "inner")
    assert here["realm_id"].startswith("ws-")
    assert inner["realm_id"] != here["realm_id"]
    assert meerkat.json("--realm", "team", "realm", "current")["why"] == "--realm"
    named = json.loads(meerkat("realm", "current", "--json", MEERKAT_REALM="from-env").stdout)
    assert (named["realm_id"], named["why"]) == ("from-env", "MEERKAT_REALM")


def test_a_broken_manifest_hides_no_other_realm(meerkat: Commands) -> None:
    meerkat("--realm", "good", "run", "[[say hi]]")
    broken = meerkat.state_root / "broken"
    broken.mkdir()
    (broken / "realm_manifest.json").write_text("{", encoding="utf-8")
    found = {realm["realm_id"]: realm for realm in meerkat.json("realm", "list")["realms"]}
    assert found["good"]["backend"] == "sqlite"
    assert "damaged" in found["broken"]["error"]
    lines = meerkat("realm", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["REALM", "broken", "good"]
    assert meerkat("realm", "show", "broken").returncode == 9
    assert meerkat.json("realm", "show", "good")["realm_id"] == "good"
    assert meerkat("realm", "show", "absent").returncode == 4


def test_a_realm_keeps_its_backend(meerkat: Commands) -> None:
    meerkat("--realm", "team", "--realm-backend", "sqlite", "run", "[[say hi]]")
    done = meerkat("--realm", "team", "--realm-backend", "memory", "session", "list")
    assert (done.returncode, "pinned to sqlite" in done.stderr) == (5, True)


def test_an_isolated_run_says_how_to_come_back(meerkat: Commands) -> None:
    done = meerkat("--isolated", "run", "[[say hi]]")
    assert "--realm realm-" in done.stderr
    realm = done.stderr.split("--realm ")[1].split()[0]
    assert len(meerkat.json("--realm", realm, "session", "list")["sessions"]) == 1


def test_a_memory_realm_forgets(meerkat: Commands) -> None:
    assert meerkat("--realm", "brief", "--realm-backend", "memory", "run", "[[say Hi]]").stdout == "Hi\n"
    assert meerkat.json("--realm", "brief", "session", "list") == {"sessions": []}
