"""`clip-har serve`: finished runs behind HTTP, with a page for people and an API for programs.

What a run says of an image is decided in predict.py; here it is asked for, bounded, batched, counted and sent.
"""
