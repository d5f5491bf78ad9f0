"""Storage for an index that is more than a folder of this machine, behind a few calls.

contract.py  the calls: put_new, read, read_range, list, remove, swap from the expected version
folder.py, objects.py  the vault in a folder, and in a bucket
buckets.py  a bucket by its URL, and its errors in words
lease.py  one writer at a time, by conditional writes; stubs.py  files whose content is fetched when it is needed
"""
