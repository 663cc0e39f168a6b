"""clip-har: fine-tune CLIP to recognise human actions, always measured against zero-shot."""

__version__ = "0.1.0"
