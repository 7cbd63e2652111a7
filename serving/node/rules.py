"""The rules: which series is predicted with which model, and where its results go.

A CSV, a row for each; the first row that matches a series decides. Columns to match, where an empty
cell matches everything: calling (title of the sender), modality, description, protocol, station,
body_part, kernel (patterns with * and ?, alternatives with |, upper and lower case alike),
least_slices, most_spacing_mm, derived (yes: also derived images and projections). Columns of what
to do: model (directories with commas between; empty: discard), formats, engine, destination,
second_destination, priority (higher first), refusal (yes: a document states why a case is refused).

A destination is a peer's title, `sender`, or `folder:PATH`; empty: results stay in the spool.
"""

import re
from dataclasses import dataclass

from segthor import csv_files, dicom, files
from segthor import model_directory as directory
from segthor.dicom.received import TEXTS, Series
from segthor.errors import InputError
from serving.node.peers import Peers
from serving.node.rows import Row
from serving.prediction.engine import ENGINES, TENSORFLOW
from serving.prediction.engine import require as require_engine
from serving.prediction.plan import NIFTI

SENDER, FOLDER = "sender", "folder:"
_PATTERNS = ("calling", *TEXTS)
_ACTIONS = ("model", "formats", "engine", "destination", "second_destination", "priority")
_COLUMNS = (*_PATTERNS, "least_slices", "most_spacing_mm", "derived", *_ACTIONS, "refusal")
_FORMATS = (NIFTI, *dicom.FORMATS)


@dataclass(frozen=True)
class Order:
    """What a rule does with a series.

    line: Line of the rule in its file.
    models: Model directories; none: the series is discarded.
    formats: What is written, as `serving.predict --formats`.
    engine: What computes the networks.
    destinations: Where results go, the second where the first does not take them.
    priority: Jobs of a higher priority are predicted first.
    refusal: Whether a document is sent that states why a case is refused.
    """

    line: int
    models: tuple[str, ...]
    formats: tuple[str, ...]
    engine: str
    destinations: tuple[str, ...]
    priority: int
    refusal: bool


@dataclass(frozen=True)
class Rule:
    """One row. patterns: Name of a text to its pattern, of those that are not empty."""

    patterns: dict[str, str]
    least_slices: int
    most_spacing_mm: float
    takes_derived: bool
    order: Order

    def mismatch(self, series: Series, calling: str) -> str:
        """Why the rule does not match a series, without text of a header; '' if it matches."""
        texts = series.texts | {"calling": calling}
        for name, pattern in self.patterns.items():
            if not _matches(pattern, texts[name]):
                return f"{name} is not {pattern}"
        if series.slices < self.least_slices:
            return f"{series.slices} slices, expected at least {self.least_slices}"
        if self.most_spacing_mm and not 0 < series.spacing_mm <= self.most_spacing_mm:
            return f"spacing {series.spacing_mm:.3g} mm, expected at most {self.most_spacing_mm:g}"
        if series.is_derived and not self.takes_derived:
            return "derived images or projections"
        return ""


def read(path: str, peers: Peers) -> tuple[Rule, ...]:
    """The rules of a file.

    Raises:
      InputError: a cell makes no sense; the message names file, line and column.
    """
    rows = csv_files.read_table(path, _COLUMNS, needed=("model",), comment="#")
    if not rows:
        raise InputError(f"{path}: expected at least one rule, found none")
    return tuple(_read_rule(Row(cells, line, path), peers) for line, cells in rows)


def choose(rules, series: Series, calling: str) -> tuple[Order | None, list[str]]:
    """The order of the first rule that matches, or None; and the result of each rule tried.

    Series without CT slices match no rule.
    """
    if not series.slices:
        held = ", ".join(f"{count} {kind}" for kind, count in series.others.items())
        return None, [f"no CT slices ({held or 'no files'})"]
    results = []
    for rule in rules:
        why = rule.mismatch(series, calling)
        results.append(f"line {rule.order.line}: {why or 'matches'}")
        if not why:
            return rule.order, results
    return None, results


class RuleBook:
    """The rules of a file, read again when it changes; if it has an error, the old rules stay."""

    def __init__(self, path: str, peers: Peers, report):
        """report: Function that prints a line for people."""
        self._path, self._peers, self._report = path, peers, report
        self._stamp = files.stamp(path) if files.exists(path) else ""
        self._rules = read(path, peers)

    def current(self) -> tuple[Rule, ...]:
        """The rules as of now."""
        stamp = files.stamp(self._path) if files.exists(self._path) else ""
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._rules = read(self._path, self._peers)
                self._report(f"{self._path}: {len(self._rules)} rules read")
            except InputError as error:
                self._report(f"warning: {error}; the old rules stay in use")
        return self._rules


def _matches(pattern: str, text: str) -> bool:
    """Whether one of the alternatives, with * and ?, is the whole text."""
    return any(_has_form(one.strip().lower(), text.lower()) for one in pattern.split("|"))


def _has_form(pattern: str, text: str) -> bool:
    """Matches wildcards without backtracking, so that no text takes exponential time."""
    first, *rest = [re.escape(part).replace(r"\?", ".") for part in pattern.split("*")]
    begin = re.match(first, text, re.DOTALL)
    if not begin or not rest:
        return bool(re.fullmatch(first, text, re.DOTALL))
    *middle, last = rest
    at = begin.end()
    for part in middle:
        held = re.compile(part, re.DOTALL).search(text, at)
        if not held:
            return False
        at = held.end()
    return bool(re.compile(f"(?:{last})\\Z", re.DOTALL).search(text, at))


def _read_rule(row: Row, peers: Peers) -> Rule:
    return Rule(
        patterns={name: row.text(name) for name in _PATTERNS if row.text(name)},
        least_slices=row.number("least_slices", int),
        most_spacing_mm=row.number("most_spacing_mm", float),
        takes_derived=row.yes("derived"),
        order=Order(
            line=row.line,
            models=_read_models(row),
            formats=_read_formats(row),
            engine=_read_engine(row),
            destinations=_read_destinations(row, peers),
            priority=row.number("priority", int),
            refusal=row.yes("refusal"),
        ),
    )


def _read_models(row: Row) -> tuple[str, ...]:
    models = row.names("model")
    for model in models:
        try:
            directory.newest(model)
        except InputError as error:
            raise row.error("model", str(error)) from error
    return models


def _read_formats(row: Row) -> tuple[str, ...]:
    formats = row.names("formats") or (dicom.RTSTRUCT,)
    if set(formats) - set(_FORMATS):
        raise row.unexpected("formats", f"some of {', '.join(_FORMATS)}, with commas between")
    return formats


def _read_engine(row: Row) -> str:
    engine = row.text("engine") or TENSORFLOW
    if engine not in ENGINES:
        raise row.unexpected("engine", " or ".join(ENGINES))
    require_engine(engine)
    return engine


def _read_destinations(row: Row, peers: Peers) -> tuple[str, ...]:
    destinations = []
    for column in ("destination", "second_destination"):
        destination = row.text(column)
        is_known = destination in ("", SENDER) or destination.startswith(FOLDER)
        if not is_known and not peers.receiver(destination):
            raise row.unexpected(column, "sender, folder:PATH or the title of a peer with a port")
        destinations += [destination] if destination else []
    return tuple(destinations)
