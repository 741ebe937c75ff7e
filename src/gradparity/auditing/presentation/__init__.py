"""The result of an audit, shown: as text, JSON, SARIF, Markdown, HTML and in TensorBoard.

Nothing is judged here. Read in this order: ``as_text``, ``rule_pages``, ``as_json``, ``as_sarif``, ``as_markdown``,
``step_in_view``, ``picture_parts`` and ``step_picture`` (one step as a timeline, for any drawing), ``draw_svg``,
``as_html``, ``series``, ``draw_plot``, ``board``.
"""
