"""One generation of the index, copied into a vector database and kept up to date there.

contract.py  what every store promises; follow.py  how a target comes to hold exactly one generation; rows.py  the rows
target.py  the target as typed, its name and secrets; open.py  which store it is, and which extra it needs
aliased.py  what stores with aliases have in common; formats.py  changes as bytes, for everything else
building.py  what a person reads while PostgreSQL builds an index
pgvector.py, qdrant.py, milvus.py, chroma.py, lancedb.py, elastic.py, sqlite_vec.py  a store each
"""
