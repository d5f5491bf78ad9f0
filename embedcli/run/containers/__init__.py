"""Sources that hold many documents, on their way through a run.

members.py  what the index knows of the documents in them; feed.py  their records go to the readers in batches
ended.py  each ends after all that is in it
"""
