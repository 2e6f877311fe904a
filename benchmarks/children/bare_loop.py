"""The smallest thing that answers `initialize`: a loop over lines with the standard library's JSON."""

import json
import sys

for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "bare", "version": "1"}}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": about}) + "\n")
        sys.stdout.flush()
