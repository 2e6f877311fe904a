"""The realm on the network: MCP over HTTP, guarded; health, metrics and a page to watch sessions."""
