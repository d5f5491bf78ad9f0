"""From bytes to clean text, and from text to blocks under headings.

decode.py, legacy.py, declared.py  bytes to text; clean.py, terminal.py, hyphens.py, rare.py  text to clean text
markdown.py, blocks.py, data_runs.py  headings, paragraphs, and what is data and no text
symbols.py, fractions.py  what a reader sees of symbol fonts and of formulas
"""
