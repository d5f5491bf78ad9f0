"""What SGLang looks through for models of ours, by SGLANG_EXTERNAL_MODEL_PACKAGE: each file here is one.

qwen3.py  Qwen3 embeddings, in the place of SGLang's class of that name
"""
