"""Rows in; an adapter (or all weights) and a loss curve out. Killed, it goes on from its last checkpoint.

For finetune.
"""
