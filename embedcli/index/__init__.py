"""The index on disk.

generations.py, manifest.py, documents.py, shards.py  what readers see
next_table.py, compaction.py, changes.py, publish.py, clearing.py  the next generation, and removing old ones
change_lists.py  the change lists as a chain that loaders follow
staging.py, outcomes.py, leftovers.py  the run in progress; known_vectors.py  vectors by key
where.py  which rows meet a condition of SQL
state.py, damage.py, lock.py  history, repair, one writer
mirror/  an index that lies in a vault (vault/), worked on in a folder of this machine
"""
