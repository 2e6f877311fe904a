"""The model vendors' servers, faked at the wire: what a test says in a script comes out as each vendor's bytes.

`vendors.script` is what a test says, `vendors.server` runs it on loopback.
"""
