"""Starts Python workers for Beam's EXTERNAL environment, one process for each TaskManager.

    python scripts/flink_workers.py 127.0.0.1:50000

Beam's own `worker_pool_main` supports one TaskManager per machine: it identifies workers by ids
that every TaskManager counts from 1, so that one TaskManager stops the worker of another. It also
listens on all addresses of the machine, and does not end its workers on SIGTERM.
"""

import logging
import os
import signal
import subprocess
import sys
import threading

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.utils import thread_pool_executor

WORKER = """
import sys
from apache_beam.runners.worker.sdk_worker import SdkHarness
SdkHarness(sys.argv[1], worker_id=sys.argv[2]).run()
"""


class Workers(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts workers on request; a worker ends when its TaskManager closes the connection."""

    def StartWorker(self, request, context):
        """Answers at once; the worker then calls the TaskManager at its control endpoint."""
        address, worker_id = request.control_endpoint.url, request.worker_id
        process = subprocess.Popen([sys.executable, "-c", WORKER, address, worker_id])
        logging.info("worker %s for %s started, pid %d", worker_id, address, process.pid)
        threading.Thread(target=log_end, args=(process,), daemon=True).start()
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request, context):
        """Does nothing, because the id does not identify a worker."""
        return beam_fn_api_pb2.StopWorkerResponse()


def log_end(process: subprocess.Popen):
    """Waits for a worker's end, so that it does not stay as a zombie."""
    logging.info("worker pid %d ended with status %d", process.pid, process.wait())


def serve(address: str) -> grpc.Server:
    """Listens for requests. Raises RuntimeError if the address is taken."""
    server = grpc.server(
        thread_pool_executor.shared_unbounded_instance(), options=[("grpc.so_reuseport", 0)]
    )
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(Workers(), server)
    server.add_insecure_port(address)
    server.start()
    logging.info("listening at %s", address)
    return server


def main():
    """Serves until SIGTERM or SIGINT, then ends the workers too."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    os.setpgrp()  # a group of its own, so that one signal reaches all the workers
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    server = serve(sys.argv[1])
    end.wait()
    server.stop(0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    main()
