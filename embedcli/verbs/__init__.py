"""The commands other than `ingest`, one file each: what they do, without flags or printing.

search.py, recut.py, status.py, verify.py, rights.py  only read the index
moved.py, forget.py, rollback.py, unlock.py  change it; change.py  what they have in common
doctor.py, start_engine.py, bench.py  check and measure this machine; bench_reference.py  what bench compares with
"""
