"""Answers and verdicts → outcomes of prompts → numbers with intervals and tests. Pure: values in, values out."""
