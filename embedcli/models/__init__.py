"""From the name of a model to a local folder with an identity.

resolve.py  name to folder; hub.py  download; folder.py, files.py  what is in it
tokenizer.py  text to token ids; fusing.py  the share of the cosine in a hybrid score
"""
