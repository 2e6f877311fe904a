"""Whose a model is, which one a session gets, how its provider is reached, and what there is."""

from collections.abc import Sequence

import anyio
import pytest
from sessions.actors import Scripted, says
from words import PATIENCE_S, run

from meerkat_mcp.domain.config import Config, parse
from meerkat_mcp.domain.errors import InvalidRequest, ModelUnknown, ProviderUnauthenticated, ProviderUnavailable
from meerkat_mcp.providers.base import Access, Model
from meerkat_mcp.providers.catalog import DEFAULT_MODELS
from meerkat_mcp.sessions import providers as module
from meerkat_mcp.sessions.providers import Choice, Providers, Wire

pytestmark = pytest.mark.anyio

BOX = {"base_url": "http://127.0.0.1:9/v1"}
NOTHING = Config()


class Shop:
    """A provider that only lists models; it may be closed, and may have none."""

    def __init__(self, access: Access, name: str, models: Sequence[Model] | Exception) -> None:
        self.access = access
        self.name = name
        self.listed = models
        self.asked = 0
        self.closed = 0

    async def models(self) -> tuple[Model, ...]:
        self.asked += 1
        if isinstance(self.listed, Exception):
            raise self.listed
        return tuple(self.listed)

    async def close(self) -> None:
        self.closed += 1


class Street:
    """All wires, with shops behind them, and an environment."""

    def __init__(self, models: dict[str, Sequence[Model] | Exception] | None = None, **variables: str) -> None:
        self.opened: list[Shop] = []
        self.models = models or {}
        self.variables = variables
        keys = {"anthropic": ("A_KEY",), "openai": ("O_KEY",), "gemini": ("G_KEY", "OLD_G_KEY")}
        wires = {
            name: Wire(lambda access, name=name: self.open(access, name), f"https://{name}.test", keys.get(name, ()))
            for name in ("anthropic", "openai", "gemini", "self_hosted", "demo")
        }
        self.providers = Providers(wires, lookup=lambda name: self.variables.get(name))

    def open(self, access: Access, name: str) -> Shop:
        shop = Shop(access, name, self.models.get(name, ()))
        self.opened.append(shop)
        return shop

    def access(self, choice: Choice, config: Config = NOTHING) -> Access:
        opened = self.providers.open(choice, config)
        assert isinstance(opened, Shop)
        return opened.access


def boxes(**servers) -> Config:
    return parse({"self_hosted": {name: BOX | given for name, given in servers.items()}})


# ── whose a model is ──


@pytest.mark.parametrize(
    ("model", "provider", "choice"),
    [
        ("claude-99-new", None, Choice("anthropic", "claude-99-new")),
        ("gpt-99", None, Choice("openai", "gpt-99")),
        ("o9-mini", None, Choice("openai", "o9-mini")),
        ("gemini-99", None, Choice("gemini", "gemini-99")),
        ("demo", None, Choice("demo", "demo")),
        ("anything at all", "openai", Choice("openai", "anything at all")),
        ("gpt-99", "anthropic", Choice("anthropic", "gpt-99")),
        (None, "anthropic", Choice("anthropic", DEFAULT_MODELS["anthropic"])),
        (None, "openai", Choice("openai", DEFAULT_MODELS["openai"])),
        (None, "gemini", Choice("gemini", DEFAULT_MODELS["gemini"])),
        (None, "demo", Choice("demo", "demo")),
        (None, None, Choice("demo", "demo")),
    ],
)
def test_a_model_goes_by_its_family_and_a_provider_by_its_name(model, provider, choice):
    assert Street().providers.find(model, provider, NOTHING) == choice


@pytest.mark.parametrize(
    ("model", "provider", "choice"),
    [
        ("a", None, Choice("self_hosted", "a", "one")),
        ("b", None, Choice("self_hosted", "b", "two")),
        ("gpt-99", None, Choice("self_hosted", "gpt-99", "two")),
        ("one/anything", None, Choice("self_hosted", "anything", "one")),
        ("two/org/model", None, Choice("self_hosted", "org/model", "two")),
        (None, "one", Choice("self_hosted", "a", "one")),
        ("new", "two", Choice("self_hosted", "new", "two")),
        (None, "self_hosted", Choice("self_hosted", "a", "one")),
        ("b", "self_hosted", Choice("self_hosted", "b", "two")),
        ("two/x", "self_hosted", Choice("self_hosted", "x", "two")),
        ("gpt-99", "openai", Choice("openai", "gpt-99")),
    ],
)
def test_a_self_hosted_server_is_named_or_found_by_its_list(model, provider, choice):
    config = boxes(one={"models": ["a"]}, two={"models": ["b", "gpt-99"]})
    assert Street().providers.find(model, provider, config) == choice


def test_the_only_server_has_whatever_model_is_asked_of_self_hosted():
    assert Street().providers.find("new", "self_hosted", boxes(one={})) == Choice("self_hosted", "new", "one")


@pytest.mark.parametrize(
    ("model", "provider", "config", "error", "said"),
    [
        ("nonesuch", None, NOTHING, ModelUnknown, "known to have the model 'nonesuch'"),
        ("gpt-oss-120b", None, NOTHING, ModelUnknown, "gpt-oss"),
        ("box/", None, boxes(box={}), ModelUnknown, "box/"),
        ("nobox/a", None, boxes(box={}), ModelUnknown, "nobox/a"),
        ("other", "demo", NOTHING, ModelUnknown, "Provider demo has no model 'other'"),
        ("a", "nobody", NOTHING, InvalidRequest, "no provider 'nobody'"),
        (None, "self_hosted", NOTHING, InvalidRequest, "No self-hosted server"),
        ("a", "self_hosted", NOTHING, InvalidRequest, "No self-hosted server"),
        ("new", "self_hosted", boxes(one={}, two={}), InvalidRequest, "Which self-hosted server has 'new'"),
        (None, "one", boxes(one={}), ModelUnknown, "self_hosted.one names no models"),
    ],
)
def test_what_nobody_has_is_refused_with_what_there_is(model, provider, config, error, said):
    with pytest.raises(error, match=said) as refused:
        Street().providers.find(model, provider, config)
    assert refused.value.hint


def test_an_unknown_provider_is_told_the_names_of_all():
    with pytest.raises(InvalidRequest) as refused:
        Street().providers.find("a", "nobody", boxes(one={}))
    assert refused.value.hint == "Available here: anthropic, openai, gemini, self_hosted, demo, one."


# ── which one a session gets ──


@pytest.mark.parametrize(
    ("variables", "config", "choice", "why"),
    [
        ({}, {}, Choice("demo", "demo"), "no vendor has a key"),
        ({"G_KEY": "x"}, {}, Choice("gemini", DEFAULT_MODELS["gemini"]), "G_KEY is set"),
        ({"OLD_G_KEY": "x"}, {}, Choice("gemini", DEFAULT_MODELS["gemini"]), "OLD_G_KEY is set"),
        ({"G_KEY": "x", "O_KEY": "x"}, {}, Choice("openai", DEFAULT_MODELS["openai"]), "O_KEY is set"),
        ({"O_KEY": "x", "A_KEY": "x"}, {}, Choice("anthropic", DEFAULT_MODELS["anthropic"]), "A_KEY is set"),
        ({"A_KEY": ""}, {}, Choice("demo", "demo"), "no vendor has a key"),
        ({"A_KEY": "x"}, {"agent": {"model": "gpt-99"}}, Choice("openai", "gpt-99"), "agent.model"),
        ({"A_KEY": "x"}, {"agent": {"model": "demo"}}, Choice("demo", "demo"), "agent.model"),
        (
            {"A_KEY": "x"},
            {"agent": {"provider": "gemini"}},
            Choice("gemini", DEFAULT_MODELS["gemini"]),
            "agent.provider",
        ),
        ({}, {"agent": {"model": "x-1", "provider": "openai"}}, Choice("openai", "x-1"), "agent.model"),
        (
            {"MINE": "x", "A_KEY": "x"},
            {"providers": {"anthropic": {"api_key_env": "THEIRS"}, "openai": {"api_key_env": "MINE"}}},
            Choice("openai", DEFAULT_MODELS["openai"]),
            "MINE is set",
        ),
        (
            {},
            {"self_hosted": {"empty": BOX, "box": BOX | {"models": ["a", "b"]}}},
            Choice("self_hosted", "a", "box"),
            "self_hosted.box",
        ),
        ({}, {"self_hosted": {"empty": BOX}}, Choice("demo", "demo"), "no vendor has a key"),
        (
            {"G_KEY": "x"},
            {"self_hosted": {"box": BOX | {"models": ["a"]}}},
            Choice("gemini", DEFAULT_MODELS["gemini"]),
            "G_KEY",
        ),
    ],
)
def test_a_session_that_did_not_choose_gets_the_first_that_there_is_and_is_told_why(variables, config, choice, why):
    found, reason = Street(**variables).providers.default(parse(config))
    assert found == choice
    assert why in reason


# ── how it is reached ──


def test_a_vendor_is_reached_at_its_own_address_with_its_own_key():
    assert Street(A_KEY="secret").access(Choice("anthropic", "m")) == Access(
        base_url="https://anthropic.test", api_key="secret"
    )


def test_the_config_says_where_with_which_key_and_how_patiently():
    given = {"base_url": "http://proxy", "api_key_env": "MINE", "connect_timeout_s": 1, "idle_timeout_s": 2}
    config = parse({"providers": {"gemini": given | {"api_version": "v1beta", "call_timeout_s": 7}}})
    street = Street(MINE="secret", G_KEY="other")
    assert street.access(Choice("gemini", "m"), config) == Access(
        base_url="http://proxy",
        api_key="secret",
        connect_timeout_s=1,
        idle_timeout_s=2,
        options=(("api_version", "v1beta"),),
    )
    assert street.providers.reach(Choice("gemini", "m"), config) == ("http://proxy", 7)
    assert street.providers.reach(Choice("gemini", "m"), NOTHING)[0] == "https://gemini.test"


def test_a_self_hosted_server_needs_a_key_only_when_it_names_one():
    config = boxes(one={}, two={"api_key_env": "BOX_KEY", "structured_output": "instruction"})
    street = Street(BOX_KEY="secret")
    one = street.access(Choice("self_hosted", "m", "one"), config)
    assert (one.base_url, one.api_key, one.option("structured_output")) == ("http://127.0.0.1:9/v1", "", "native")
    two = street.access(Choice("self_hosted", "m", "two"), config)
    assert (two.api_key, two.option("structured_output")) == ("secret", "instruction")


@pytest.mark.parametrize(
    ("choice", "config", "names"),
    [
        (Choice("anthropic", "m"), {}, "A_KEY"),
        (Choice("gemini", "m"), {}, "G_KEY or OLD_G_KEY"),
        (Choice("openai", "m"), {"providers": {"openai": {"api_key_env": "MINE"}}}, "MINE"),
        (Choice("self_hosted", "m", "box"), {"self_hosted": {"box": BOX | {"api_key_env": "BOX_KEY"}}}, "BOX_KEY"),
    ],
)
def test_without_its_key_it_names_the_variable(choice, config, names):
    with pytest.raises(ProviderUnauthenticated) as refused:
        Street(A_KEY="", O_KEY="not this one").providers.open(choice, parse(config))
    assert f"{names} is not set" in refused.value.message
    assert refused.value.facts["kind"] == "auth"
    assert names.split()[0] in refused.value.hint


def test_a_key_is_in_no_text_of_an_access():
    assert "secret" not in repr(Street(A_KEY="secret").access(Choice("anthropic", "m")))


async def test_what_was_opened_is_kept_until_it_is_reached_otherwise_and_closed_in_the_end():
    street = Street(O_KEY="one")
    first = street.providers.open(Choice("openai", "a"), NOTHING)
    assert street.providers.open(Choice("openai", "b"), NOTHING) is first
    street.variables["O_KEY"] = "two"
    assert street.providers.open(Choice("openai", "a"), NOTHING) is not first
    assert street.providers.open(Choice("openai", "a"), parse({"providers": {"openai": {"base_url": "http://x"}}}))
    await street.providers.close()
    assert [shop.closed for shop in street.opened] == [1, 1, 1]
    await street.providers.close()
    assert [shop.closed for shop in street.opened] == [1, 1, 1]


def test_the_variable_that_has_a_key_is_named():
    street = Street(OLD_G_KEY="x")
    assert street.providers.key_variable("gemini", NOTHING) == "OLD_G_KEY"
    assert street.providers.key_variable("openai", NOTHING) is None
    assert street.providers.key_variable("demo", NOTHING) is None


# ── what they have ──


async def test_about_says_who_has_a_key_by_which_variable_and_never_the_key():
    street = Street(O_KEY="secret-1", BOX_KEY="secret-2")
    config = boxes(one={"models": ["a", "b"]}, two={"api_key_env": "BOX_KEY"}, three={"api_key_env": "NO_KEY"})
    about = await street.providers.about(config)
    told = {one["provider"]: {name: one[name] for name in one if name not in ("provider", "kind")} for one in about}
    assert told["openai"] | {"models": 0} == {"has_key": True, "key_variable": "O_KEY", "models": 0}
    assert told["gemini"] | {"models": 0} == {"has_key": False, "key_variable": "G_KEY", "models": 0}
    assert min(told[name]["models"] for name in ("anthropic", "openai", "gemini")) > 0
    assert told["demo"] == {"models": 1}
    assert told["one"] == {"models": 2}
    assert told["two"] == {"models": 0, "has_key": True}
    assert told["three"] == {"models": 0, "has_key": False}
    assert "secret" not in str(about)
    assert not street.opened, "nobody was asked"


async def test_without_keys_the_catalogue_has_what_is_known_offline():
    street = Street({"demo": [Model(model="demo", provider="demo")]})
    models = await street.providers.catalog(NOTHING)
    assert {model.provider for model in models} == {"anthropic", "openai", "gemini", "demo"}
    assert [shop.name for shop in street.opened] == ["demo"]
    assert {model.provider for model in await street.providers.catalog(NOTHING, "gemini")} == {"gemini"}


async def test_with_a_key_the_provider_is_asked_once_an_hour_and_what_it_says_counts(monkeypatch):
    now_s = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s)
    street = Street({"openai": [Model(model="gpt-99", provider="openai", context_tokens=7)]}, O_KEY="x")
    for _ in range(3):
        (only,) = await street.providers.catalog(NOTHING, "openai")
        assert (only.model, only.context_tokens) == ("gpt-99", 7)
    assert street.opened[0].asked == 1
    now_s += module.LIVE_LIST_S + 1
    await street.providers.catalog(NOTHING, "openai")
    assert street.opened[0].asked == 2


async def test_many_who_ask_at_once_ask_it_once():
    street = Street({"openai": [Model(model="gpt-99", provider="openai")]}, O_KEY="x")
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(street.providers.catalog, NOTHING, "openai")
    assert street.opened[0].asked == 1


async def test_a_list_that_fails_is_asked_for_again_after_a_minute_and_until_then_the_known_one_holds(monkeypatch):
    now_s = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s)
    street = Street({"openai": ProviderUnavailable("Not now.")}, O_KEY="x")
    known = await Street().providers.catalog(NOTHING, "openai")
    assert await street.providers.catalog(NOTHING, "openai") == known
    assert await street.providers.catalog(NOTHING, "openai") == known
    assert street.opened[0].asked == 1
    now_s += module.LIVE_FAILED_S + 1
    street.opened[0].listed = [Model(model="gpt-99", provider="openai")]
    assert [model.model for model in await street.providers.catalog(NOTHING, "openai")] == ["gpt-99"]


async def test_a_list_that_does_not_come_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(module, "LIVE_WAIT_S", 0.01)
    street = Street(O_KEY="x")
    known = await Street().providers.catalog(NOTHING, "openai")
    shop = street.providers.open(Choice("openai", "m"), NOTHING)
    monkeypatch.setattr(shop, "models", anyio.sleep_forever)
    with anyio.fail_after(PATIENCE_S):
        assert await street.providers.catalog(NOTHING, "openai") == known


async def test_self_hosted_models_are_the_configs_or_the_servers_own_with_the_configs_window():
    street = Street({"self_hosted": [Model(model="live", provider="self_hosted", context_tokens=5)]})
    config = boxes(one={"models": ["a", "b"], "context_tokens": 100}, two={}, three={"context_tokens": 300})
    listed = {
        name: [(model.model, model.context_tokens) for model in await street.providers.catalog(config, name)]
        for name in ("one", "two", "three", "self_hosted")
    }
    assert listed["one"] == [("a", 100), ("b", 100)]
    assert listed["two"] == [("live", 5)]
    assert listed["three"] == [("live", 300)]
    assert listed["self_hosted"] == listed["one"] + listed["two"] + listed["three"]


async def test_the_catalogue_of_nobody_is_refused():
    for provider in ("nobody", "self_hosted"):
        with pytest.raises(InvalidRequest):
            await Street().providers.catalog(NOTHING, provider)


async def test_what_is_known_of_a_model_comes_from_the_catalogue_or_from_its_provider():
    street = Street(
        {
            "openai": [Model(model="gpt-99", provider="openai", context_tokens=9)],
            "demo": [Model(model="demo", provider="demo", context_tokens=32)],
        },
        O_KEY="x",
    )
    offline = await street.providers.model(Choice("openai", DEFAULT_MODELS["openai"]), NOTHING)
    assert offline is not None
    assert offline.context_tokens
    assert not street.opened
    live = await street.providers.model(Choice("openai", "gpt-99"), NOTHING)
    assert live is not None
    assert live.context_tokens == 9
    assert await street.providers.model(Choice("openai", "gpt-100"), NOTHING) is None
    demo = await street.providers.model(Choice("demo", "demo"), NOTHING)
    assert demo is not None
    assert demo.context_tokens == 32
    config = boxes(box={"models": ["a"], "context_tokens": 100})
    box = await street.providers.model(Choice("self_hosted", "a", "box"), config)
    assert box is not None
    assert box.context_tokens == 100


# ── in a realm ──


async def test_the_configs_model_is_the_sessions_until_it_chooses_another(den):
    box = Scripted(says("from the box"), name="self_hosted")
    demo = Scripted(says("from the demo"))
    wires = {one.name: Wire(lambda _, one=one: one) for one in (box, demo)}
    den.sessions.providers = Providers(wires, lookup=lambda _: None)
    await den.set_config({"self_hosted": {"box": BOX}, "agent": {"model": "box/m-1", "provider_params": {"seed": 7}}})
    _, done = await run(den, "hi", provider_params=None)
    assert (done.text, done.model, done.provider) == ("from the box", "m-1", "self_hosted")
    assert box.requests[0].provider_params == {"seed": 7}
    _, done = await run(den, "hi", model="demo", provider_params=None)
    assert done.text == "from the demo"
    assert demo.requests[0].provider_params == {}, "what was written for the config's provider is not for another"
