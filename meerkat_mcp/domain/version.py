"""Which meerkat_mcp this is."""

VERSION = "0.1.0"
