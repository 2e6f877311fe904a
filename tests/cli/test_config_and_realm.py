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


def test_a_file_says_what_holds_on_this_machine(meerkat: Commands) -> None:
    (meerkat.folder / "mine.toml").write_text("[agent]\nmax_steps = 7\nmodel = 'demo'\n", encoding="utf-8")
    said = meerkat.json("--config", "mine.toml", "config", "get", "--effective", "--with-generation")
    assert (said["config"]["agent"]["max_steps"], said["layers"]["agent.max_steps"]) == (7, "file")
    assert meerkat("config", "patch", "--json", '{"agent": {"max_steps": 3}}').returncode == 0
    done = meerkat("config", "get", "--effective", "--with-generation", MEERKAT_CONFIG="mine.toml")
    said = json.loads(done.stdout)
    assert said["config"]["agent"]["max_steps"] == 3
    assert said["layers"] == {"agent.max_steps": "realm", "agent.model": "file"}
    assert said["resolved_paths"]["config_file"].endswith("mine.toml")
    variables = {row["variable"]: row["in_force"] for row in said["environment"]}
    assert (variables["MEERKAT_CONFIG"], variables["MEERKAT_REALM"]) == (True, False)
    assert meerkat.json("--config", "mine.toml", "config", "get") == {"agent": {"max_steps": 3}}
    assert meerkat.json("--config", "mine.toml", "models")["default_model"] == "demo"


def test_a_wrong_file_is_an_error_that_names_its_key(meerkat: Commands) -> None:
    (meerkat.folder / "mine.toml").write_text("[agent]\nmax_step = 7\n", encoding="utf-8")
    for command in (("config", "get", "--effective"), ("run", "[[say hi]]"), ("serve",)):
        done = meerkat("--config", "mine.toml", *command)
        assert (done.returncode, done.stdout) == (2, "")
        assert "mine.toml" in done.stderr
        assert "did you mean 'max_steps'?" in done.stderr
    assert not meerkat.state_root.exists()


def test_archived_sessions_are_pruned_by_plan(meerkat: Commands) -> None:
    for name in ("one", "two"):
        assert meerkat("run", f"[[say {name}]]", "--title", name).returncode == 0
        assert meerkat("session", "archive", "last").returncode == 0
    shown = meerkat("session", "prune", "--archived-before", "0")
    assert ("one" in shown.stdout, "two" in shown.stdout, shown.returncode) == (True, True, 0)
    plan = shown.stderr.split("--plan ")[1].strip()
    assert meerkat.json("session", "prune", "--archived-before", "0")["plan_id"] == plan
    first = meerkat.json("session", "list", "--archived")["sessions"][0]["session_id"]
    assert meerkat("session", "restore", first).returncode == 0
    changed = meerkat("--json", "session", "prune", "--archived-before", "0", "--plan", plan)
    error = json.loads(changed.stderr)["error"]
    assert (changed.returncode, error["code"], error["total"]) == (5, "plan_changed", 1)
    done = meerkat.json("session", "prune", "--archived-before", "0", "--plan", error["plan_id"])
    assert (done["deleted"], done["total"]) == (True, 1)
    assert "No such archived sessions" in meerkat("session", "prune", "--archived-before", "0", "--yes").stdout
    assert [one["session_id"] for one in meerkat.json("session", "list")["sessions"]] == [first]


def test_a_realm_is_tidied_when_one_says_so(meerkat: Commands) -> None:
    meerkat("run", "[[say hi]]")
    meerkat("session", "archive", "last")
    meerkat("config", "set", "--json", '{"retention": {"archived_days": 0}}')
    dry = meerkat("realm", "tidy", "--dry-run")
    assert dry.stdout == "Would take away: 1 sessions.\n"
    assert meerkat.json("realm", "tidy")["sessions"] == 1
    assert meerkat("realm", "tidy").stdout == "Took away: nothing to do.\n"
