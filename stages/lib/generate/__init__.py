"""Many prompts in, greedy completions out: the engine, and asking a subject with it.

For gen_math and gen_safety; judge asks a safeguard model with the engine.
"""
