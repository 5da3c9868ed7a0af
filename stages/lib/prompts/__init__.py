"""The only builder of chat messages, and the only reader of numbers in what a model wrote. Pure: no model library."""
