"""A real S3 server on loopback (moto's) and the environment in which it is found."""

import contextlib
import logging

import pyarrow.fs as pafs


@contextlib.contextmanager
def running():
    """Yield a server's URL; moto is imported here, since few tests need it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


def environment(url):
    """What a service needs to know of it."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def fill(url, bucket, objects):
    """Create a bucket with these objects, by key.

    By itself AWS's client gives up after three seconds, in which a busy machine may not answer.
    """
    system = pafs.S3FileSystem(
        access_key="testing",
        secret_key="testing",
        endpoint_override=url,
        region="us-east-1",
        allow_bucket_creation=True,
        request_timeout=120,
        connect_timeout=120,
    )
    system.create_dir(bucket)
    for key, data in objects.items():
        with system.open_output_stream(f"{bucket}/{key}") as file:
            file.write(data)
    return system
