"""The stages of an ingest, in the order in which a run meets them; only ingest.py knows that order.

begin.py, known.py, looking/, plan.py  the lock, what the index knows, what there is to do; tasks.py, tools.py
settings.py, record.py, begin_work.py, adoption.py  under which settings, what changes, what killed runs finished
readers.py, stream.py, containers/, pending.py, checkpoints.py, outcome.py  from sources to stored rows
publishing/, summary.py  the next generation, and what is said of it
pace/  how long a run may take, and how long it will
"""
