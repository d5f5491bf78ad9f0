"""Documents that lie in a bucket: `s3://` and `gs://`.

contract.py  what a bucket can do; open.py  the bucket of a URL
s3.py  S3, over connection.py, signing.py, credentials.py and side_by_side.py; gs.py  Google's, by obstore
listing.py  all objects below a folder, in the walk's order; walk.py  the sources among them
fetched.py  the bytes of an object
"""
