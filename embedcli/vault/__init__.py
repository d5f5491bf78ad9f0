"""Storage that several machines share.

buckets.py  a bucket by its URL, with the credentials of the environment, and its errors in words
"""
