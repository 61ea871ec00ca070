"""A server on loopback that stands in for Google Cloud Storage: ``python tests/bucket_server.py PORT``."""

import sys
import threading
from typing import Any

from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import objects

BUCKET = "bucket"


def download(request: Any, response: Any, storage: Any) -> None:
    """A download, with the generation of the object, which TensorStore asks for and the emulator leaves out."""
    objects.download(request, response, storage)
    if response.status < 300:
        found = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = found["generation"]


def get(request: Any, response: Any, storage: Any) -> None:
    """An object's description or, as its clients ask for it, its content."""
    if request.query.get("alt") == ["media"]:
        download(request, response, storage)
    else:
        objects.get(request, response, storage)


if __name__ == "__main__":
    replaced = {objects.download: download, objects.get: get}
    for _, handlers in server.HANDLERS:
        for method, handler in handlers.items():
            handlers[method] = replaced.get(handler, handler)
    server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket=BUCKET).start()
    print("ready", flush=True)
    threading.Event().wait()
