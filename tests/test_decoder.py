"""Compressed pixels are decoded in a child process, and no frame ends the process that reads.

The judges of values are pydicom with GDCM, and the arrays that were compressed.
"""

import contextlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder

from segthor.dicom import DicomError, decoder, pixels
from segthor.dicom.decoder import Codestream, DecodeError
from tests import dicom_phantoms as phantoms
from tests.cases import tiny_patient

COMPRESSED = ["jpeg_lossless", "jpeg_lossless_sv1", "jpeg_ls", "jpeg_2000_lossless", "jpeg_2000"]
COMPRESSED += ["rle"]


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Name of a syntax to the bytes of one file of it."""
    made = tiny_patient(3)
    hu, affine = phantoms.posed(made.hu[:, :, 11:13], made.affine)
    found = {}
    for name in COMPRESSED:
        paths = phantoms.write_series(tmp_path_factory.mktemp(name), hu, affine, syntax=name)
        with open(paths[0], "rb") as stream:
            found[name] = stream.read()
    return found


def frame_of(content):
    """(transfer syntax, codestream) of a file of one image."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    return str(dataset.file_meta.TransferSyntaxUID), frame


def decoded(content):
    syntax, frame = frame_of(content)
    is_rle = syntax == decoder.RUN_LENGTH
    codestream = Codestream(48, 48, 16) if is_rle else Codestream.read(frame)
    return decoder.decode(syntax, frame, codestream)


def child_ids():
    """Processes of the idle children."""
    return [child._process.pid for child in decoder._children._idle]


def alive(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stream:
        return stream.read().rpartition(")")[2].split()[0] != "Z"
    return False


def ends_soon(pid):
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.1)
    return False


def test_each_shared_slice_that_ended_the_process_is_refused_in_one_line(real_ct):
    paths = sorted((real_ct / "damaged_slices").iterdir())
    assert len(paths) == 12
    for path in paths:
        with pytest.raises(DicomError, match="cannot be decoded") as caught:
            pixels.Image(path.read_bytes(), str(path)).hu(None)
        assert caught.value.code == "file_damaged" and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", COMPRESSED)
def test_damaged_frames_are_refused_or_decoded(slices, name):
    rng = np.random.default_rng(0)
    ended = []
    for _ in range(10):
        content = bytearray(slices[name])
        start = content.index(b"\xfe\xff\x00\xe0", 300)  # of the frame's item
        for _ in range(rng.integers(1, 17)):
            content[rng.integers(start + 8, min(len(content), start + 400))] = rng.integers(256)
        try:
            ended.append(pixels.Image(bytes(content), "P").hu(None).shape)
        except DicomError as error:
            ended.append(error.code)
    assert set(ended) <= {(48, 48), "file_damaged", "file_truncated"}
    assert decoded(slices[name]).shape == (48, 48)


@pytest.mark.parametrize("name", ["jpeg_ls", "rle"])
def test_a_frame_of_more_pixels_than_its_headers_say_is_refused_at_once(slices, name):
    syntax, frame = frame_of(slices[name])
    began = time.monotonic()
    with pytest.raises(DecodeError, match="another number of pixels"):
        decoder.decode(syntax, frame, Codestream(24, 48, 16))
    assert time.monotonic() - began < decoder._GRACE_SECONDS
    assert decoded(slices[name]).shape == (48, 48)


def test_a_frame_that_ends_the_child_is_refused_and_the_next_is_decoded(slices, monkeypatch):
    before = decoded(slices["jpeg_ls"])
    send = decoder._Child.decode

    def decode(child, *given):
        child._process.send_signal(signal.SIGSEGV)
        child._process.wait()
        return send(child, *given)

    with monkeypatch.context() as patched:
        patched.setattr(decoder._Child, "decode", decode)
        with pytest.raises(DecodeError, match="ended by SIGSEGV"):
            decoded(slices["jpeg_ls"])
    np.testing.assert_array_equal(decoded(slices["jpeg_ls"]), before)


def test_a_child_that_the_system_ended_is_replaced(slices):
    decoded(slices["jpeg_ls"])
    (pid, *_) = child_ids()
    os.kill(pid, signal.SIGKILL)
    assert decoded(slices["jpeg_ls"]).shape == (48, 48)
    assert pid not in child_ids()


def test_a_frame_has_its_time(slices, monkeypatch):
    decoded(slices["jpeg_ls"])
    monkeypatch.setattr(decoder, "FRAME_SECONDS", 0.2)
    for pid in child_ids():
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DecodeError, match="took longer"):
        decoded(slices["jpeg_ls"])
    monkeypatch.undo()
    assert decoded(slices["jpeg_ls"]).shape == (48, 48)


def test_a_frame_has_its_memory():
    """32 components of 2048 x 2048 are 512 MB of zeros in 9 KB."""
    frame = imagecodecs.jpeg2k_encode(
        np.zeros((32, 2048, 2048), np.uint8), codecformat="j2k", planar=True, level=0
    )
    syntax = decoder.JPEG_2000[0]
    with pytest.raises(DecodeError):
        decoder.decode(syntax, frame, Codestream(64, 64, 8))


def test_a_child_cannot_open_or_write_files(slices):
    decoded(slices["jpeg_ls"])
    with open(f"/proc/{child_ids()[0]}/limits") as stream:
        limits = {line[:26].strip(): line[26:].split()[:2] for line in stream}
    for name in ("Max core file size", "Max file size", "Max open files"):
        assert limits[name] == ["0", "0"]
    assert int(limits["Max address space"][0]) < 4 << 30


def test_threads_and_forked_and_daemon_processes_decode(slices):
    expected = decoded(slices["jpeg_ls"])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(decoded, [slices["jpeg_ls"]] * 8):
            np.testing.assert_array_equal(found, expected)
    own = child_ids()
    assert 1 <= len(own) <= 2
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        arguments = (theirs, slices["jpeg_ls"])
        process = context.Process(target=_decode_and_report, args=arguments, daemon=True)
        process.start()
        assert ours.poll(60)
        found, theirs = ours.recv()
        process.join()
        np.testing.assert_array_equal(found, expected)
        assert not set(theirs) & set(own)
        assert all(map(ends_soon, theirs))
    assert child_ids() == own and all(map(alive, own))
    np.testing.assert_array_equal(decoded(slices["jpeg_ls"]), expected)


def _decode_and_report(connection, content):
    connection.send((decoded(content), child_ids()))


@pytest.mark.parametrize("how", ["raise SystemExit", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_children_end_with_their_parent(slices, tmp_path, how):
    path = tmp_path / "slice.dcm"
    path.write_bytes(slices["jpeg_ls"])
    program = f"""
import os, signal
from segthor.dicom import decoder, pixels
pixels.Image(open({str(path)!r}, "rb").read(), "P").hu(None)
print(decoder._children._idle[0]._process.pid, flush=True)
{how}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == "" and ends_soon(int(done.stdout))


def test_a_thread_that_ends_leaves_its_child_to_others(slices):
    decoder._children.close()
    for _ in range(3):
        thread = threading.Thread(target=decoded, args=(slices["jpeg_ls"],))
        thread.start()
        thread.join()
    assert len(child_ids()) == 1


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("precision", [10, 12, 13, 16])
@pytest.mark.parametrize("name", ["jpeg_lossless", "jpeg_ls", "jpeg_2000_lossless", "rle"])
def test_bits_and_signs_are_read_as_gdcm_reads_them(tmp_path, name, precision, signed):
    """Also where data set and codestream disagree on them, as those of some exporters do."""
    low = -(1 << precision - 1) if signed else 0
    values = np.random.default_rng(0).integers(low, low + (1 << precision), (24, 20, 2))
    options = dict(syntax=name, bits=precision, signed=signed)
    path, _ = phantoms.write_series(tmp_path, values, np.eye(4), **options)
    dataset = pydicom.dcmread(path)
    for stored in {precision, 12, 16}:
        for sign in (0, 1):
            dataset.BitsStored, dataset.HighBit = stored, stored - 1
            dataset.PixelRepresentation = sign
            dataset.save_as(path)
            found = pixels.Image((tmp_path / path).read_bytes(), path).hu(None)
            judge = get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(
                dataset, index=0, raw=True, decoding_plugin="pydicom" if name == "rle" else "gdcm"
            )[0]
            spare = max(0, 8 * judge.itemsize - stored)
            np.testing.assert_array_equal(found, judge << spare >> spare)
