"""Which files there are.

lists.py, streams.py  files of a list, records on stdin; containers.py  which files hold records
roots.py  the roots of a run; walk.py  every file below them; filters.py, brackets.py  which of them count
buckets/  the same for roots in S3 and Google Cloud Storage
"""
