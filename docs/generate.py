"""Writes the reference pages from the code, so that they cannot fall behind.

`python docs/generate.py` writes them; with `--check` it writes nothing and names the pages that are stale.
"""

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast, get_args, get_origin

from notes import ADVICE, CLI, CONFIG, CONFIG_SECTIONS, ERRORS, EVENT_GROUPS, EVENTS, FIELDS, FLAGS, TOOLS
from pydantic import BaseModel

from meerkat_mcp.cli import grammar
from meerkat_mcp.cli.exits import EXIT_CODES
from meerkat_mcp.domain import errors, events, messages, servers, settings
from meerkat_mcp.domain.config import Config
from meerkat_mcp.domain.session import ACCEPTS
from meerkat_mcp.server import inputs, realm_results, results
from meerkat_mcp.server.app import surface
from meerkat_mcp.server.surface import SurfaceTool, compact

PAGES_FOLDER = Path(__file__).parent / "reference"
STAMP = "<!-- Written by docs/generate.py from the code. Do not edit: run `python docs/generate.py`. -->\n"
SHARED: tuple[type[BaseModel], ...] = (inputs.SettingsInput, inputs.TurnInput)


# ── tools ──


def tools_page() -> str:
    """Every MCP tool: what it takes and what it gives."""
    tools = surface(cast(Any, None))  # the tools are described without a realm
    models = {str(compact(model, gives=True)): model for model in [*_models(results), *_models(realm_results)]}
    lines = [TOOLS.rstrip(), "", "| Tool | Does | Hints |", "|---|---|---|"]
    lines += [f"| [`{tool.name}`](#{tool.name}) | {tool.description} | {_hints(tool)} |" for tool in tools]
    used: list[type[BaseModel]] = []
    for tool in tools:
        given = models[str(tool.fn_metadata.output_schema)]
        used.append(given)
        lines += ["", f"## {tool.name}", "", str(tool.description), "", *_takes(tool.input_model)]
        lines += ["", f"Returns [{given.__name__}](#{given.__name__.lower()})."]
    lines += ["", "## Shared arguments"]
    for model in SHARED:
        lines += ["", f"### {model.__name__}", "", _first_paragraph(model), "", *_table(model, own_only=True)]
    lines += ["", "## Parts of arguments"]
    for model in _inside(*(tool.input_model for tool in tools)):
        lines += ["", f"### {model.__name__}", "", _first_paragraph(model), "", *_table(model)]
    lines += ["", "## Results"]
    for model in [*dict.fromkeys(used), *(part for part in _inside(*used) if part not in used)]:
        lines += ["", f"### {model.__name__}", "", _first_paragraph(model), "", *_table(model, gives=True)]
    return "\n".join(lines)


def _takes(model: type[BaseModel]) -> list[str]:
    lines = _table(model, own_only=True)
    shared = [base for base in SHARED if issubclass(model, base)]
    if shared:
        links = " and ".join(f"[{base.__name__}](#{base.__name__.lower()})" for base in shared)
        lines += ["", f"It takes everything in {links}, too."]
    return lines or ["It takes no arguments."]


def _hints(tool: SurfaceTool) -> str:
    said = tool.annotations
    assert said is not None, "every tool of the surface has annotations"
    hints = {
        "read-only": said.read_only_hint,
        "destructive": said.destructive_hint,
        "idempotent": said.idempotent_hint and not said.read_only_hint,
        "open world": said.open_world_hint,
    }
    return ", ".join(name for name, is_so in hints.items() if is_so) or "-"


def _models(module: Any) -> list[type[BaseModel]]:
    found = vars(module).values()
    return [one for one in found if isinstance(one, type) and issubclass(one, BaseModel) and one is not BaseModel]


def _inside(*models: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that the fields of these are made of."""
    found: dict[str, type[BaseModel]] = {}
    modules = (servers, messages, settings, inputs, results, realm_results, events)
    known = {model.__name__: model for module in modules for model in _models(module)}
    for model in models:
        for name in model.model_json_schema(mode="serialization").get("$defs", {}):
            found[name] = known[name]
    return list(found.values())


# ── events ──


def events_page() -> str:
    """Every event, its payload, and when it may come."""
    kinds = {kind.model_fields["type"].default: kind for kind in _models(events) if "type" in kind.model_fields}
    grouped = [name for _, names in EVENT_GROUPS for name in names]
    if sorted(grouped) != sorted(events.EVENT_TYPES):
        raise SystemExit(f"EVENT_GROUPS in docs/notes.py: {sorted(set(grouped) ^ events.EVENT_TYPES)}")
    lines = [
        EVENTS.rstrip(),
        "",
        *_table(events.Fact, gives=True),
        "",
        "## All types",
        "",
        "| Type | Says | Tier |",
        "|---|---|---|",
    ]
    for name in grouped:
        tier = "delta" if name in events.DELTAS else "recorded"
        lines.append(f"| [`{name}`](#{name}) | {_first_sentence(kinds[name])} | {tier} |")
    for title, names in EVENT_GROUPS:
        lines += ["", f"## {title}"]
        for name in names:
            states = [state for state, accepted in ACCEPTS.items() if kinds[name] in accepted]
            lines += ["", f"### {name}", "", _prose(kinds[name])]
            lines += ["", f"Can come while the session is: {', '.join(states)}."]
            if table := _table(kinds[name], gives=True, without={*events.Fact.model_fields, "type"}):
                lines += ["", *table]
    lines += ["", "## Parts of events"]
    for model in _inside(*(kinds[name] for name in grouped)):
        lines += ["", f"### {model.__name__}", "", _prose(model), "", *_table(model, gives=True)]
    return "\n".join(lines)


# ── errors ──


def errors_page() -> str:
    """Every error code: what it means, whether to try again, what the command line exits with."""
    classes = {error.code: error for error in _tree(errors.MeerkatError) if "code" in vars(error)}
    classes["internal"] = errors.Internal
    lines = [ERRORS.rstrip(), "", "| Code | Means | Try again? | Exit code |", "|---|---|---|---|"]
    for code, error in sorted(classes.items()):
        again = "yes" if error.retryable else "no"
        lines.append(f"| [`{code}`](#{code}) | {_first_sentence(error)} | {again} | {EXIT_CODES[code]} |")
    for code, error in sorted(classes.items()):
        lines += ["", f"## {code}", "", _prose(error), "", ADVICE[code]]
    return "\n".join(lines)


def _tree(error: type[errors.MeerkatError]) -> Iterator[type[errors.MeerkatError]]:
    yield error
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)


# ── config ──


def config_page() -> str:
    """Every key of a realm's config."""
    lines = [CONFIG.rstrip()]
    for name, section in config_sections(Config):
        depth = "###" if "." in name.removesuffix(".NAME") else "##"
        plain = [key for key, field in section.model_fields.items() if _section_in(field.annotation) is None]
        about = CONFIG_SECTIONS.get(name) or _first_paragraph(section)
        lines += ["", f"{depth} {name.removesuffix('.NAME')}", "", about]
        if plain:
            lines += ["", *_table(section, prefix=f"{name}.", without=section.model_fields.keys() - set(plain))]
    return "\n".join(lines)


def config_sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every object of the config by its path; `NAME` stands for a name that somebody chooses."""
    for key, field in model.model_fields.items():
        section = _section_in(field.annotation)
        if section is not None:
            path = f"{prefix}{key}" + (".NAME" if get_origin(field.annotation) is dict else "")
            yield path, section
            yield from config_sections(section, f"{path}.")


def _section_in(annotation: Any) -> type[BaseModel] | None:
    inner = get_args(annotation)[1] if get_origin(annotation) is dict else annotation
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


# ── command line ──


def cli_page() -> str:
    """Every command with its arguments and flags."""
    root = grammar._parser()
    lines = [CLI.rstrip(), "", "## Flags of every command", "", *_flags(_own(root, set())), "", "## Commands", ""]
    everywhere = {action.dest for action in root._actions} | {"help"}
    commands = [(words, command) for words, command in _commands(root, ()) if not _inner(command)]
    lines += ["| Command | Does |", "|---|---|"]
    for words, command in commands:
        name = " ".join(words)
        lines.append(f"| [`meerkat-mcp {name}`](#{name.replace(' ', '-')}) | {_said(command.description)} |")
    for words, command in commands:
        own = _own(command, everywhere - {"json"} if words[0] == "config" else everywhere)
        places = [_PLACES.get(str(a.nargs), "{}").format(a.metavar) for a in own if not a.option_strings]
        usage = " ".join(("meerkat-mcp", *words, "[flags]" if own else "", *places))
        lines += ["", f"## {' '.join(words)}", "", _said(command.description), "", "```text", usage.strip(), "```"]
        if own:
            lines += ["", *_flags(own)]
        if command.epilog:
            lines += ["", " ".join(command.epilog.split())]
    return "\n".join(lines)


_PLACES = {"?": "[{}]", "*": "[{} …]"}


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inner in _inner(command).items():
        yield (*words, name), inner
        yield from _commands(inner, (*words, name))


def _inner(command: Any) -> dict[str, Any]:
    found = [action.choices for action in command._actions if isinstance(action.choices, dict)]
    return found[0] if found else {}


def _own(command: Any, everywhere: set[str]) -> list[Any]:
    shown = [a for a in command._actions if a.help != argparse.SUPPRESS]
    return [a for a in shown if a.dest not in everywhere and not isinstance(a.choices, dict)]


def _flags(actions: Sequence[Any]) -> list[str]:
    lines = ["| Flag | |", "|---|---|"]
    for action in actions:
        value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
        if action.choices:
            value = "|".join(action.choices)
        names = ", ".join(f"`{name}{f' {value}' if value else ''}`" for name in action.option_strings)
        default = action.default if action.default not in (None, False, "", argparse.SUPPRESS, []) else None
        about = (action.help or FLAGS.get(action.dest, "")) + (f" (default: {default})" if default is not None else "")
        lines.append(f"| {names or f'`{value}`'} | {_said(about)} |".replace("K=V", "KEY=VALUE"))
    # A bar between words stands for itself; those between cells have spaces around them.
    return [re.sub(r"(?<=\w)\|(?=\w)", r"\\|", line) for line in lines]


def _said(text: str | None) -> str:
    text = " ".join((text or "").split())
    first = text.split(" ", 1)[0]
    return text if "_" in first or first == "json" else text[:1].upper() + text[1:]


# ── tables ──


def _table(
    model: type[BaseModel],
    *,
    own_only: bool = False,
    gives: bool = False,
    prefix: str = "",
    without: set[str] | None = None,
) -> list[str]:
    """A row for each field: its name, its type with the limits, its default, what it is for."""
    schema = model.model_json_schema(mode="serialization" if gives else "validation")
    names = [name for name in schema.get("properties", {}) if name not in (without or ())]
    if own_only:
        names = [name for name in names if name in model.__annotations__]
    if not names:
        return []
    head = ["| Field | Type | |", "|---|---|---|"] if gives else ["| Field | Type | Default | |", "|---|---|---|---|"]
    rows: list[str] = []
    for name in names:
        said = schema["properties"][name]
        about = said.get("description") or _note(model, name)
        cells = [f"`{prefix}{name}`", _type(said)]
        if not gives:
            cells.append("required" if name in schema.get("required", ()) else _default(said))
        rows.append(f"| {' | '.join([*cells, about])} |")
    return head + rows


def _note(model: type[BaseModel], name: str) -> str:
    """The hand-written line on a field: on its class, on a parent of it, or on every field of that name."""
    for owner in model.__mro__:
        if note := FIELDS.get(f"{owner.__name__}.{name}"):
            return note
    return FIELDS.get(name, "")


def _default(said: dict[str, Any]) -> str:
    default = said.get("default")
    if default is None or (isinstance(default, dict | list | str) and not default):
        return "-"
    return f"`{default!s}`".replace("True", "true").replace("False", "false").replace("'", '"')


def _type(said: dict[str, Any]) -> str:
    """A JSON Schema in a few words."""
    if "$ref" in said:
        name = said["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in said:
        return f"`{said['const']}`"
    if "enum" in said:
        return ", ".join(f"`{one}`" for one in said["enum"])
    if "anyOf" in said:
        return ", ".join(dict.fromkeys(_type(one) for one in said["anyOf"] if one != {"type": "null"}))
    kind = said.get("type", "any JSON")
    if kind == "array":
        limit = f" (at most {said['maxItems']})" if "maxItems" in said else ""
        return f"list of {_type(said.get('items', {}))}{limit}"
    if kind == "object" and isinstance(inner := said.get("additionalProperties"), dict) and inner:
        return f"object of {_type(inner)}"
    return f"{kind}{_limits(said)}"


def _limits(said: dict[str, Any]) -> str:
    low, high = said.get("minimum"), said.get("maximum")
    limits: list[str] = []
    if low is not None and high is not None:
        limits.append(f"{low:,} to {high:,}")
    elif low is not None:
        limits.append(f"≥ {low:,}")
    if "exclusiveMinimum" in said:
        limits.append(f"> {said['exclusiveMinimum']:,}")
    if "maxLength" in said:
        limits.append(f"at most {said['maxLength']:,} characters")
    if "pattern" in said:
        limits.append(f"`{said['pattern']}`")
    return f" ({', '.join(limits)})" if limits else ""


# ── words ──


def _prose(thing: Any) -> str:
    paragraphs = textwrap.dedent(thing.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(part.split()) for part in paragraphs).strip()
    text = text.replace("`MeerkatError.as_dict`", "[the errors page](errors.md)").replace(
        "that is None", "that is null"
    )
    return re.sub(r"(^|\. )None", r"\1Absent", text).replace("None", "absent")


def _first_paragraph(thing: Any) -> str:
    return _prose(thing).partition("\n\n")[0]


def _first_sentence(thing: Any) -> str:
    return re.split(r"(?<=[.;:]) ", _first_paragraph(thing))[0].rstrip(".;:") + "."


PAGES: dict[str, Callable[[], str]] = {
    "tools.md": tools_page,
    "events.md": events_page,
    "errors.md": errors_page,
    "config.md": config_page,
    "cli.md": cli_page,
}


def rendered(name: str) -> str:
    """The whole text of a page."""
    return STAMP + PAGES[name]().rstrip() + "\n"


def stale() -> Sequence[str]:
    """The pages that do not say what the code says."""
    files = {name: PAGES_FOLDER / name for name in PAGES}
    return [n for n, file in files.items() if not file.exists() or file.read_text(encoding="utf-8") != rendered(n)]


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or check them."""
    behind = stale()
    if list(arguments) == ["--check"]:
        for name in behind:
            print(f"docs/reference/{name} is stale: run python docs/generate.py", file=sys.stderr)
        return 1 if behind else 0
    for name in behind:
        (PAGES_FOLDER / name).write_text(rendered(name), encoding="utf-8", newline="\n")
        print(f"wrote docs/reference/{name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
