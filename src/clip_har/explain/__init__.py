"""Why a model answers as it does: pixels, words, training images, classes, and what training changed.

Arrays and pictures in, records and pictures out; reading datasets and writing files is in experiment/explanations.py.
"""
