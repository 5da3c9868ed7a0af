"""A name in params.yaml → files → a loaded model, with its adapter; and attention behind a shared prefix.

For train, generate and judge, which is to say for every stage that loads a model.
"""
