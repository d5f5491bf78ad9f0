"""The server: vectors and searches over HTTP, for every client at once.

app.py  the routes, who may use them; answers.py  answers and errors in OpenAI's form
limits.py  how much a request may bring, and how much may wait; batcher.py  all requests through one Feeder
served.py  the model that is served; embeddings.py, state.py  the endpoints; metrics.py  figures for Prometheus
server.py  the socket, signals, and the end
"""
