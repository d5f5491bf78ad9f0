"""`bench`: how quickly this machine embeds.

measure.py  a whole ingest and its engine alone; reference.py  sentence-transformers; workers.py  a run over workers
"""
