"""Many prompts in, greedy completions out: the engine; asking a subject with it. For gen_math, gen_safety judge."""
