"""Loading a parquet file into a service over HTTP: a client of POST /index/bulk."""
