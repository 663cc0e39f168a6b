"""What is wrong with a dataset: files, copies, leaks, labels, balance; and a plan to clean it that a person can edit.

Knows no model: embeddings come as arrays. Nothing is ever written into the dataset's folder.
"""
