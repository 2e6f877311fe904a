"""What each vendor refuses, and the vendor's words for it: a wrong request must not pass here and fail there.

A check is a generator that yields what it has against a request; the first objection is the answer. "Facts" are
those of the issue that brought the providers, by section; "SDK" is a type of the installed one.
"""
