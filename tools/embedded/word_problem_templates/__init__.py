"""Templates and word lists for word_problems.py: one module for each split, and template.py on how to read an entry."""

from tools.embedded.word_problem_templates import test, train, validation

TEMPLATES = {"train": train.TEMPLATES, "validation": validation.TEMPLATES, "test": test.TEMPLATES}
WORDS = {"train": train.WORDS, "validation": validation.WORDS, "test": test.WORDS}
