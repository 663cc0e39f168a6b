"""The rows of `make benchmark`: each is a function that measures clip-har against a named reference in the same run."""
