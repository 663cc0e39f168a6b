"""Work on a Ray cluster, in order and with bounded look-ahead: session.py connects, pool.py hands out the work.

What the work is, is for embedding/ and experiment/.
"""
