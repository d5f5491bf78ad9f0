"""Files that hold many documents, read as streams: records and mailboxes.

opened.py  a container: its compression, its format, its records; known.py  which of them changed, and which left
fields.py  the fields of a record; lines.py  JSON lines, CSV and TSV; columns.py  Parquet and Arrow
mailbox.py  the mails of a mailbox
"""
