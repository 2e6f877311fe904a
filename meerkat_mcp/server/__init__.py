"""The MCP surface: decode, call the service, encode."""
