"""Rules and peers: first match wins, patterns are compared, and a mistake is one line."""

import os
import time
from pathlib import Path

import nodes
import pytest
from nodes import write_peers, write_rules, write_series
from programs import run, run_entry

from segthor.dicom.received import TEXTS, Series, read_series
from segthor.errors import InputError
from serving.node import explain, peers, rules
from serving.node.peers import Peer, Peers
from serving.node.settings import Settings

PACS = Peers((Peer("PACS", "127.0.0.1", 104, True),))
SERIES = Series(dict.fromkeys(TEXTS, "") | {"modality": "CT"}, 100, 2.5, False, {})


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model" / "1").mkdir(parents=True)
    (tmp_path / "model" / "1" / "saved_model.pb").touch()
    return tmp_path / "model"


def read(tmp_path, *rows):
    path = write_rules(tmp_path / "rules.csv", *({"model": tmp_path / "model", **r} for r in rows))
    return rules.read(path, PACS)


def with_texts(**texts):
    return Series(SERIES.texts | texts, 100, 2.5, False, {})


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("*thorax*", "CT Thorax 2mm", True),
        ("thorax", "CT Thorax", False),
        ("*thorax*|*chest*", "chest", True),
        ("B3?f", "B31F", True),
        ("B3?f", "B3f", False),
        ("*", "", True),
        ("?*", "", False),
        ("a*b*c", "aXbXbc", True),
        ("a*b*c", "acb", False),
        ("a.c", "abc", False),
        ("[a]", "a", False),
        ("*a*a*a*a*a*a*a*a*a*a*a*a*b", "a" * 5000, False),
    ],
)
def test_a_pattern_is_compared_with_the_whole_text(tmp_path, model, pattern, text, matches):
    (rule,) = read(tmp_path, {"description": pattern})
    assert (rule.mismatch(with_texts(description=text), "") == "") == matches


@pytest.mark.parametrize("column", ["description", "protocol", "station", "body_part", "kernel"])
def test_each_text_decides(tmp_path, model, column):
    some, all_ = read(tmp_path, {column: "wanted"}, {column: ""})
    assert rules.choose((some, all_), with_texts(**{column: "Wanted"}), "")[0].line == 2
    order, said = rules.choose((some, all_), with_texts(**{column: "SecretText"}), "")
    assert order.line == 3 and said == [f"line 2: {column} is not wanted", "line 3: matches"]


def test_sender_slices_spacing_and_derivation_decide(tmp_path, model):
    one, two, three, four = read(
        tmp_path, {"calling": "CT1"}, {"least_slices": 101}, {"most_spacing_mm": 2}, {}
    )
    assert [rule.mismatch(SERIES, "CT2") for rule in (one, two, three, four)] == [
        "calling is not CT1",
        "100 slices, expected at least 101",
        "spacing 2.5 mm, expected at most 2",
        "",
    ]
    derived = Series(SERIES.texts, 100, 2.5, True, {})
    (takes,) = read(tmp_path, {"derived": "yes"})
    assert four.mismatch(derived, "") and not takes.mismatch(derived, "")


def test_cells_become_an_order(tmp_path, model):
    row = {
        "formats": "rtstruct, seg", "engine": "tensorflow", "destination": "PACS",
        "second_destination": "folder:/x", "priority": 3, "refusal": "yes",
    }  # fmt: skip
    (rule,) = read(tmp_path, row)
    expected = (2, (str(model),), ("rtstruct", "seg"), "tensorflow", ("PACS", "folder:/x"), 3, True)
    assert rule.order == rules.Order(*expected)
    assert read(tmp_path, {"model": "", "description": "x"})[0].order.models == ()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"model": "nowhere"}, "line 2, column model: nowhere: expected a model directory"),
        ({"formats": "pdf"}, "line 2, column formats: expected some of nifti, rtstruct"),
        ({"engine": "abacus"}, "line 2, column engine: expected tensorflow or openvino"),
        ({"destination": "NOBODY"}, "line 2, column destination: expected sender, folder:PATH"),
        ({"least_slices": "many"}, "line 2, column least_slices: expected a number"),
        ({"most_spacing_mm": "nan"}, "line 2, column most_spacing_mm: expected a number"),
        ({"priority": "-1"}, "line 2, column priority"),
        ({"refusal": "maybe"}, "line 2, column refusal: expected yes or no, found maybe"),
        ({"colour": "red"}, "expected the columns"),
    ],
)
def test_a_mistake_is_one_line_with_row_and_column(tmp_path, model, row, words):
    with pytest.raises(InputError, match=words) as error:
        read(tmp_path, row)
    assert "\n" not in str(error.value) and "rules.csv" in str(error.value)


def test_rules_that_are_spoilt_while_the_node_runs_leave_those_from_before(tmp_path, model):
    path, said = tmp_path / "rules.csv", []
    write_rules(path, {"model": model})
    book = rules.RuleBook(str(path), PACS, said.append)
    path.write_text("model,priority\nnowhere,x\n")
    assert len(book.current()) == 1 and "stay in use" in said[0] and "column" in said[0]
    assert book.current() and len(said) == 1
    os.remove(path)
    assert len(book.current()) == 1
    write_rules(path, {"model": model}, {"model": model})
    assert len(book.current()) == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("CT1", "somewhere", ""), "line 2, column address: expected an IP address"),
        (("CT1", "*", 104), "line 2, column address: expected one IP address"),
        (("CT1", "10.0.0.0/8", 104), "expected one IP address"),
        (("CT1", "127.0.0.1", 70000), "line 2, column port"),
        (("A_TITLE_TOO_LONG_", "*", ""), "line 2, column title"),
        (("PACS", "10.1.2.3", 104), "receives without TLS on another machine"),
    ],
)
def test_a_mistake_among_the_peers_is_one_line(tmp_path, row, words):
    with pytest.raises(InputError, match=words):
        peers.read(Settings("spool", peers=write_peers(tmp_path / "peers.csv", row)))


def test_a_series_is_described_by_its_headers(tmp_path):
    def change(dataset, k):
        dataset.SeriesDescription, dataset.ConvolutionKernel = "Thorax", "B30f"

    paths = write_series(tmp_path / "ct", "a", slices=5, change=change)
    scout = nodes.phantoms.write_localizer(tmp_path / "ct", nodes.AFFINE)
    series = read_series(paths + scout)
    assert (series.slices, series.spacing_mm, series.is_derived) == (5, 3.0, False)
    assert (series.texts["description"], series.texts["kernel"]) == ("Thorax", "B30f")
    assert series.others == {"localizer": 1}
    derived = write_series(tmp_path / "d", "d", image_type="DERIVED\\SECONDARY\\MIP")
    assert read_series(derived).is_derived


def test_explain_says_which_rule_took_a_series_and_quotes_no_header(tmp_path, model):
    def change(dataset, k):
        dataset.SeriesDescription = "SecretDescription"

    write_series(tmp_path / "ct", "a", change=change)
    write_series(tmp_path / "ct", "b", image_type="DERIVED\\PRIMARY\\AXIAL")
    given = read(tmp_path, {"description": "thorax"}, {"least_slices": 9}, {"destination": "PACS"})
    text = explain.explain(str(tmp_path / "ct"), given)
    assert "line 2: description is not thorax" in text and "Secret" not in text
    assert "line 3: 4 slices, expected at least 9" in text
    assert f"line 4: {model}; rtstruct; PACS" in text
    assert "derived images or projections" in text and "no rule matches: discarded" in text


def test_status_and_explain_are_programs(tmp_path, model):
    write_series(tmp_path / "ct", "a")
    path = write_rules(tmp_path / "rules.csv", {"model": model})
    done = run_entry("serving.node", rules=path, explain=tmp_path / "ct")
    assert done.returncode == 0 and "line 2: matches" in done.stdout
    done = run_entry("serving.node", spool=tmp_path / "ct", status=True)
    assert done.returncode == 2 and "expected the spool of a node" in done.stderr
    with nodes.node(tmp_path / "n", make(tmp_path / "n")) as (one, port):
        nodes.send(port, write_series(tmp_path / "a", "a"))
        nodes.wait_for_jobs(one, 1)
        done = run_entry("serving.node", spool=one.spool.root, status=True)
    assert "failed 1" in done.stdout and "failed: " in done.stdout and "a bad day" in done.stdout


WITHOUT_EXTRA = """
import runpy, sys
sys.modules["pynetdicom"] = None  # as if it were not installed
runpy.run_module("serving.node", run_name="__main__", alter_sys=True)
"""


def test_without_the_extra_the_node_says_what_to_install(tmp_path, model):
    rules_path = write_rules(tmp_path / "rules.csv", {"model": model})
    words = [f"--spool={tmp_path / 'spool'}", f"--rules={rules_path}", "--peers=peers.csv"]
    done = run(["-c", WITHOUT_EXTRA, *words], cold=True)
    assert done.returncode == 2
    assert done.stderr == (
        "error: serving.node needs the package pynetdicom; install it with pip install "
        "segthor[node]\n"
    )


def make(folder: Path):
    folder.mkdir()

    def predict(*_):
        raise InputError("a bad day")

    return predict


def test_files_of_a_watched_folder_are_taken_once_they_are_still(tmp_path):
    share = tmp_path / "share"
    share.mkdir()
    (share / "letter.txt").write_text("no DICOM")
    row = {"destination": f"folder:{tmp_path / 'results'}"}
    with nodes.node(tmp_path, rules=[row], watch=str(share), quiet_s=0.5, port=0) as (one, _):
        paths = write_series(share, "a")
        last = Path(paths[-1]).read_bytes()
        Path(paths[-1]).write_bytes(last[:200])  # an export that is under way
        time.sleep(0.3)
        Path(paths[-1]).write_bytes(last)
        ((state, name),) = nodes.wait_for_jobs(one, 1)
        assert state == "sent" and len(one.spool.images(state, name)) == 4
        (result,) = (tmp_path / "results").iterdir()
        uid = one.spool.read(state, name).objects[0].uid
        assert nodes.pydicom.dcmread(result).SOPInstanceUID == uid
    assert [Path(path).exists() for path in paths] == [True] * 4
    with nodes.node(tmp_path, rules=[row], watch=str(share), quiet_s=0.2, port=0) as (one, _):
        time.sleep(1)
        assert one.spool.names("inbox") == [] and len(one.spool.names("sent")) == 1
