"""One server for many hosts: a thin proxy for each host, and the realm's resident server that they all reach.

`proxy` and what it imports is the standard library alone, and little of it: it starts in the time of a bare Python.
`resident` is the other end.
"""
