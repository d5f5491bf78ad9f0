"""The server: vectors and searches over HTTP, for every client at once.

app.py  the routes, who may use them; answers.py  answers and errors in OpenAI's form
limits.py  how much a request may bring, and how much may wait; batcher.py, waiting.py  one Feeder for all
served.py, service.py  the model that is served; embeddings.py  its endpoint; metrics.py  figures for Prometheus
index_routes.py, searching.py, page.py, files.py  what an index adds; renewal.py  its new generations
guard.py, clients.py  who asks, and who has left; server.py  the socket, signals, and the end
mcp.py  an index as tools of a language model
"""
