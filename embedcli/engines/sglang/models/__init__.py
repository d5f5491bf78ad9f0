"""The package in which SGLang finds our model classes, by SGLANG_EXTERNAL_MODEL_PACKAGE: each file has one class.

qwen3.py  Qwen3 embeddings, in the place of SGLang's class of that name
"""
