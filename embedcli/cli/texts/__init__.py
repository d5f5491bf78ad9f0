"""What commands print and write for people and for Prometheus.

status.py, verify.py, search.py  the text of these commands; metrics.py  the file with the figures of a run
"""
