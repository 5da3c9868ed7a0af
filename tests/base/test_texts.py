"""Text for a page: inert, but for what is meant."""

from stages.lib.base.texts import coded


def test_a_command_in_a_sentence_is_code_and_all_else_stays_text():
    said = "Safety fell by <b>8</b> points; `dvc exp run -S a<b` would tell, and ` stays."
    shown = "Safety fell by &lt;b&gt;8&lt;/b&gt; points; <code>dvc exp run -S a&lt;b</code> would tell, and ` stays."
    assert coded(said) == shown
