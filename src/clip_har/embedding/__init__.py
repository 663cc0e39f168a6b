"""`clip-har embed`: embeddings of any number of images, in files that several machines write without talking.

command.py is the command; files.py, one file; images.py, the list; parts.py, who does what; api.py, the same in memory.
"""
