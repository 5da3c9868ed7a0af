"""Files from elsewhere: the hub, and wheels of the package index, each by its hash.

For data and model, which name what they want; and for tools that ask whether it can be had.
"""
