"""Numbers → what people read: Markdown, pages, charts, wording; people's labels; the ten published runs."""
