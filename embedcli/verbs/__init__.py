"""The commands but `ingest`, a file for each: what they do, without flags or printing.

status.py, verify.py  read only; moved.py, forget.py, rollback.py, unlock.py  change the index, by way of change.py
doctor.py, bench.py  about this machine; bench_reference.py  what bench compares with
"""
