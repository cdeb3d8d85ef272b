"""An S3-compatible storage on loopback with one bucket. Prints its port, ends with its stdin."""

import sys

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **keys)
client.create_bucket(Bucket="tufgate")
print(port, flush=True)
sys.stdin.read()
