"""What scripts/train_tiny_clip.py is made of: wide drawn scenes, their captions, the model and its training.

Nothing here is part of the installed package.
"""
