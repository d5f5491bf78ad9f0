"""Finding passages: over one generation of an index, by vector, by words, or by both.

words.py, postings.py, bm25.py, phrases.py  terms of a text, where they are, what they score
sidecars.py, sealed.py, scan.py  the cache of a shard, memory-mapped and checked, and the exact nearest vectors
fuse.py, query.py, query_vector.py, view.py, passages.py, searcher.py  from a query to the hits
shown.py  what is shown of a hit
narrow.py, recall.py  vectors in fewer bits, and what they still find
"""
