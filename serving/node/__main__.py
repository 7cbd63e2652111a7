"""Receives DICOM series over the network, predicts them, and sends the results back.

  python -m serving.node --spool=SPOOL --rules=RULES.csv --peers=PEERS.csv

The process may be killed at any moment: what was acknowledged is in the spool, and the next start
goes on with it. docs/node.md says how the node is set up beside a PACS.
"""

from absl import flags

from segthor import flags_of, locks, outputs
from segthor.errors import InputError, run
from serving.node.settings import Settings

flags_of.define(Settings)
STATUS = flags.DEFINE_boolean("status", False, "Print what is in --spool, and end.")
EXPLAIN = flags.DEFINE_string(
    "explain", None, "Print which rule takes the series in this folder, and end."
)
CALLING = flags.DEFINE_string("calling", "", "With --explain: title of the sender.")


def main(_):
    """Checks the settings, then serves until the process is ended."""
    settings = flags_of.read(Settings)
    if STATUS.value or EXPLAIN.value:
        _load()
        print(_describe(settings))
        return
    _check(settings)
    Node, Predictor = _load()
    predictor = Predictor(settings.case_timeout_s)
    node = Node(settings, predictor.predict)
    with locks.lock_folder(settings.spool):
        node.start()
        if settings.port:
            place = f"{settings.address}, port {settings.port}"
            print(f"{settings.title} listens on {place}.", flush=True)
        try:
            predictor.load()
            node.run()
        finally:
            node.stop()


def _check(settings: Settings) -> None:
    given = {"rules": settings.rules, "peers": settings.peers, "watch": settings.watch}
    outputs.check_folder(settings.spool, given, flag="spool")
    _require_rules(settings)
    if not settings.port and not settings.watch:
        raise InputError("--port=0: expected --watch=FOLDER with it, or a port to listen on")
    if settings.port and not settings.peers:
        raise InputError(
            "--peers=: expected a CSV of who may call, found nothing; see docs/node.md"
        )


def _require_rules(settings: Settings) -> None:
    if not settings.rules:
        raise InputError("--rules=: expected a CSV of rules, found nothing; see docs/node.md")


def _describe(settings: Settings) -> str:
    from serving.node import explain, peers, rules, status

    if STATUS.value:
        return status.describe(settings.spool)
    _require_rules(settings)
    current = rules.read(settings.rules, peers.read(settings))
    return explain.explain(EXPLAIN.value, current, CALLING.value)


def _load():
    """Node and Predictor, whose modules need packages that not everybody has."""
    try:
        from serving.node.service import Node
        from serving.node.work import Predictor
    except ModuleNotFoundError as error:
        package = error.name.partition(".")[0]
        raise InputError(
            f"serving.node needs the package {package}; install it with pip install segthor[node]"
        ) from error
    return Node, Predictor


if __name__ == "__main__":
    run(main)
