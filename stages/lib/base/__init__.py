"""What every stage starts with: parameters, rows, files, the command line, processes, unfinished work.

Everyone may import it; it imports no other room. What is measured, and where its files lie, is named in measured.py.
"""
