"""What more than one room of tests uses: the event loop, and an environment without anybody's keys."""

import os

import pytest

for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
    os.environ.pop(name, None)  # a real key would make another model the default one, and cost money


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
