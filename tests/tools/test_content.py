"""From MCP's blocks to what a model is shown."""

import base64
from typing import Any

import pytest
from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from meerkat_mcp.domain.messages import Image
from meerkat_mcp.tools import content
from meerkat_mcp.tools.content import schema, to_output

PIXEL = base64.b64encode(bytes(30)).decode()


def text(words: str) -> TextContent:
    return TextContent(type="text", text=words)


def image(data: str = PIXEL, mime_type: str = "image/png") -> ImageContent:
    return ImageContent(type="image", data=data, mime_type=mime_type)


def shown(*blocks: Any, structured: Any = None, **limits: int):
    return to_output(CallToolResult(content=list(blocks), structured_content=structured), **limits)


def test_texts_stand_below_each_other_and_pictures_beside_them():
    output = shown(text("one"), image(), text("two"))
    assert output.content == "one\ntwo"
    assert output.images == (Image(mime_type="image/png", data=PIXEL),)
    assert not output.is_error


def test_a_failed_call_stays_failed():
    assert to_output(CallToolResult(content=[text("no")], is_error=True)).is_error


def test_whatever_cannot_be_shown_is_at_least_named():
    output = shown(
        AudioContent(type="audio", data=PIXEL, mime_type="audio/wav"),
        ResourceLink(type="resource_link", uri="file:///a", name="a", mime_type="text/plain", description="the A"),
        ResourceLink(type="resource_link", uri="file:///b", name="b"),
        EmbeddedResource(type="resource", resource=TextResourceContents(uri="file:///c", text="inside")),
        EmbeddedResource(type="resource", resource=BlobResourceContents(uri="file:///d", blob=PIXEL)),
    )
    assert output.content.splitlines() == [
        "[audio, audio/wav: it cannot be heard here]",
        "resource a: file:///a (text/plain, the A)",
        "resource b: file:///b",
        "file:///c:",
        "inside",
        "[file:///d: unknown type, about 30 bytes, which cannot be shown here]",
    ]
    assert output.images == ()


def test_an_embedded_picture_is_a_picture():
    blob = BlobResourceContents(uri="file:///p", mime_type="image/jpg", blob=PIXEL)
    assert shown(EmbeddedResource(type="resource", resource=blob)).images == (
        Image(mime_type="image/jpeg", data=PIXEL),
    )


@pytest.mark.parametrize(
    ("block", "note"),
    [
        (image(mime_type="image/svg+xml"), "[image/svg+xml: it cannot be shown here]"),
        (image(mime_type="text/html"), "[text/html: it cannot be shown here]"),
        (image(data="not base64!"), "[image/png: it is damaged]"),
        (image(data="ü"), "[image/png: it is damaged]"),
        (image(data=""), "[image/png of 0 bytes: it cannot be shown, the limit is 1000]"),
        (image(data=base64.b64encode(bytes(1001)).decode()), "cannot be shown, the limit is 1000]"),
        (image(data=base64.b64encode(bytes(9000)).decode()), "too large to be shown, the limit is 1000]"),
    ],
)
def test_a_picture_that_a_provider_would_refuse_is_a_note(block: ImageContent, note: str):
    output = shown(block, image_bytes_max=1000)
    assert output.images == ()
    assert output.content.endswith(note)


def test_there_is_an_end_to_pictures():
    output = shown(*[image()] * (content.IMAGES_MAX + 1))
    assert len(output.images) == content.IMAGES_MAX
    assert "left out" in output.content


@pytest.mark.parametrize(
    ("texts", "structured"),
    [
        (['{"a": [1, 2]}'], {"a": [1, 2]}),
        (['{\n  "a": 1\n}'], {"a": 1}),
        (["3"], {"result": 3}),
        (["hello"], {"result": "hello"}),
        (["hello"], {"content": "hello"}),
        (["1", "2"], {"result": [1, 2]}),
        (["x", "y"], {"result": ["x", "y"]}),
        (["see:", '{"a": 1}'], {"a": 1}),
    ],
)
def test_what_a_text_says_already_is_not_said_twice(texts: list[str], structured: Any):
    assert shown(*map(text, texts), structured=structured).content == "\n".join(texts)


@pytest.mark.parametrize("texts", [[], ["two found"]])
def test_what_no_text_says_is_shown_as_json(texts: list[str]):
    output = shown(*map(text, texts), structured={"found": ["ä", "b"]})
    assert output.content == "\n".join([*texts, '{"found": ["ä", "b"]}'])


def test_of_a_long_text_its_two_ends_are_kept():
    output = shown(text("a" * 500 + "b" * 500), chars_max=100)
    assert output.content == "a" * 75 + "\n[… 900 characters left out …]\n" + "b" * 25


def test_half_a_character_becomes_a_question_mark():
    assert shown(text("half \ud83d")).content == "half ?"


@pytest.mark.parametrize("known", [{"type": "object"}, {"type": "object", "oneOf": [], "$defs": {"x": {}}}])
def test_the_schema_of_an_object_is_kept(known: dict):
    assert schema(known) is known


@pytest.mark.parametrize("other", [{}, {"type": "string"}, {"type": ["object", "null"]}, {"$ref": "#/x"}])
def test_any_other_schema_is_replaced_by_that_of_an_object(other: dict):
    assert schema(other) == {"type": "object"}
