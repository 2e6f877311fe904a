"""What a tool answered, from MCP's blocks to what a model can be shown: text and pictures."""

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, cast

from meerkat_mcp.domain.messages import Image, JsonObject
from meerkat_mcp.tools.base import Output

if TYPE_CHECKING:
    from mcp import types

IMAGE_BYTES_MAX = 5 * 1024 * 1024  # the narrowest provider's limit for one picture
IMAGES_MAX = 20
IMAGES_CHARS_MAX = 12 * 1024 * 1024  # of one result, as base64: it becomes one event in the log
CHARS_MAX = 200_000
IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Pictures that every provider takes. Another one in a conversation would have each later request refused."""

_HEAD_SHARE = 0.75  # of a text that is cut; the rest is its end, where errors stand


def to_output(
    result: "types.CallToolResult", *, image_bytes_max: int = IMAGE_BYTES_MAX, chars_max: int = CHARS_MAX
) -> Output:
    """Text in the order of its blocks, pictures beside it; a note for whatever is neither or too large."""
    texts: list[str] = []
    images: list[Image] = []
    for block in result.content:
        shown = _shown(block, image_bytes_max)
        if isinstance(shown, Image) and not _fits(shown, images):
            shown = f"[one more image was left out: at most {IMAGES_MAX}, and {IMAGES_CHARS_MAX >> 20} MB, are shown]"
        if isinstance(shown, Image):
            images.append(shown)
        else:
            texts.append(shown)
    said = [block.text for block in result.content if block.type == "text"]
    if result.structured_content is not None and not _says(said, result.structured_content):
        texts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return Output(content=cut("\n".join(texts), chars_max), images=tuple(images), is_error=result.is_error)


def _fits(image: Image, others: list[Image]) -> bool:
    return len(others) < IMAGES_MAX and sum(len(one.data) for one in (image, *others)) <= IMAGES_CHARS_MAX


def cut(text: str, chars_max: int) -> str:
    """The text, well-formed; of one that is too long its beginning and its end."""
    text = text.encode("utf-8", "replace").decode()
    if len(text) <= chars_max:
        return text
    head = int(chars_max * _HEAD_SHARE)
    left_out = len(text) - chars_max
    return f"{text[:head]}\n[… {left_out} characters left out …]\n{text[head + left_out :]}"


def schema(input_schema: JsonObject) -> JsonObject:
    """A tool's schema as it is, if it describes an object; anything else is replaced by what any object fits."""
    return input_schema if input_schema.get("type") == "object" else {"type": "object"}


def _shown(block: "types.ContentBlock", image_bytes_max: int) -> str | Image:
    match block.type:
        case "text":
            return block.text
        case "image":
            return _image(block.mime_type, block.data, image_bytes_max)
        case "audio":
            return f"[audio, {block.mime_type}: it cannot be heard here]"
        case "resource_link":
            about = ", ".join(part for part in (block.mime_type, block.description) if part)
            return f"resource {block.name}: {block.uri}" + (f" ({about})" if about else "")
        case "resource":
            resource = block.resource
            if hasattr(resource, "text"):
                return f"{resource.uri}:\n{cast('types.TextResourceContents', resource).text}"
            blob = cast("types.BlobResourceContents", resource).blob
            kind = resource.mime_type or "unknown type"
            if kind.startswith("image/"):
                return _image(kind, blob, image_bytes_max)
            return f"[{resource.uri}: {kind}, about {len(blob) * 3 // 4} bytes, which cannot be shown here]"


def _image(mime_type: str, data: str, bytes_max: int) -> str | Image:
    """A picture that every provider will take, or a note why there is none."""
    kind = mime_type.partition(";")[0].strip().lower()
    kind = "image/jpeg" if kind == "image/jpg" else kind
    if kind not in IMAGE_TYPES:
        return f"[{mime_type[:100]}: it cannot be shown here]"
    if len(data) * 3 // 4 > bytes_max + 2:
        return f"[{kind} of about {len(data) * 3 // 4} bytes: too large to be shown, the limit is {bytes_max}]"
    try:
        binary = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return f"[{kind}: it is damaged]"
    if not binary or len(binary) > bytes_max:
        return f"[{kind} of {len(binary)} bytes: it cannot be shown, the limit is {bytes_max}]"
    return Image(mime_type=kind, data=data)


def _says(texts: list[str], value: Any) -> bool:
    """Whether the texts are that value written out; many servers send both, for those who read only one."""
    if not texts:
        return False
    inner: Any = value
    if isinstance(value, dict) and len(cast(JsonObject, value)) == 1:
        (inner,) = cast(JsonObject, value).values()  # how servers wrap what is no object: {"result": …}
    read = [_read(text) for text in texts]
    return any(candidate in (value, inner) for candidate in (*read, *texts, read, texts))


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
