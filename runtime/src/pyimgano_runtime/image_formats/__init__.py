"""One module a picture format: its header, whether the file is whole, plain pixels.

Nothing here trusts a length that a file states: every read stays inside the bytes
that are there, and every loop ends with them.
"""
