"""The stages of an ingest, in the order in which a run meets them; only ingest.py knows that order.

known.py, plan.py, settings.py  what the index knows, what there is to do, under which settings; tasks.py, tools.py
containers.py  files that hold many documents, from the plan to their last record
begin.py, stream.py, pending.py, checkpoints.py, outcome.py  from sources to stored rows
publish.py, recipe.py, summary.py  the next generation, and what is said of it
pace/  how long a run may take, and how long it will
"""
