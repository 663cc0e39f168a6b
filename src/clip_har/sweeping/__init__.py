"""Hyperparameter search: settings are sampled, trained and scored, by one worker or several that share a study.

What is searched is declared in config/search_space.py; results are evaluation/sweep.py's.
"""
