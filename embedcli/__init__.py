"""embedcli: a folder of PDFs and text in, a Parquet index of unit vectors out."""

__version__ = "0.1.0"
