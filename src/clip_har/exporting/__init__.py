"""A finished run in the formats of other tools, each compared with the run itself before it is kept.

The command is in commands/export.py; which images the comparison is made on is decided there.
"""
