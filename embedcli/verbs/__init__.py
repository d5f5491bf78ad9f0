"""The commands other than `ingest`, one file each: what they do, without flags or printing.

search.py, recut.py, status.py, verify.py, probed_again.py, rights.py, dry_run.py  only read the index
sync.py, changes.py  copy it elsewhere
edits/  change it: `moved`, `forget`, `rollback`, `unlock`
embed.py, embed_job.py  texts to vectors without an index; rows.py  the rows of an index
serve.py, offer.py, serve_mcp.py  both to programs
doctor/, bench/  check and measure this machine
"""
