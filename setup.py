"""Packaging of segthor: the shared core, the data job, the trainer and the predictor."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

RUNTIME = [
    "absl-py",
    "apache-beam>=2.77",
    "fsspec",
    "google-crc32c",  # the checksum of a TFRecord, in C
    "isal",  # ISA-L: three times faster than the standard library's gzip on a CT
    "matplotlib",
    "nibabel>=5.4",
    "numpy",
    "packaging",  # reads what a package requires, for segthor.doctor
    "pillow",
    "scikit-learn>=1.7,<2",  # serving.calibrate alone
    "scipy",
    "segmentation-models==1.0.1",
    "tensorboard",
    "tensorflow>=2.21,<2.22",
    "tf-keras>=2.21,<2.22",  # follows tensorflow's minor version: segmentation-models needs Keras 2
]

DICOM = [
    "contourpy",  # outlines at sub-pixel accuracy
    "highdicom>=0.28",
    "imagecodecs>=2025.3.30",  # libjpeg-turbo, CharLS, OpenJPEG; newer ones need Python 3.11
    "pydicom>=3.0.2,<4",
]

OPENVINO = ["openvino>=2026.2"]  # reads a SavedModel as it is; the fastest on many processors

NODE = [*DICOM, "pynetdicom>=3.0.4,<4"]  # the network, of serving.node alone

EXTRAS = {
    "gpu": ["tensorflow[and-cuda]"],
    "gcp": ["apache-beam[gcp]", "gcsfs"],
    "aws": ["apache-beam[aws]", "s3fs>=2025.1"],
    "dicom": DICOM,
    "openvino": OPENVINO,
    "node": NODE,
    "test": [
        *NODE,
        *OPENVINO,
        "hypothesis",
        "pytest",
        "pytest-xdist",
        "python-gdcm",  # compresses the phantoms' pixels
        "ruff",
        # Independent implementations that the tests compare with.
        "scikit-image",
        "simpleitk",
        "surface-distance",
        # An S3 server on the loopback, and the client behind s3:// URLs.
        "flask",
        "flask-cors",
        "moto[s3]",
        "s3fs>=2025.1",  # older ones fit any boto3; they are slow and old
        # Drives a real browser through the report.
        "selenium",
    ],
    "bench": ["monai"],
}


class BuildWithConfigs(build_py):
    """A wheel also holds configs/, where `segthor.configs` finds it."""

    def run(self):
        """Builds as setuptools does, then copies the configurations."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "segthor" / "config_files"
            shutil.copytree("configs", target, dirs_exist_ok=True)


setup(
    name="segthor",
    version="0.1.0",
    description="Organ-at-risk segmentation on thoracic CT: data job, training, prediction",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["segthor*", "beam_jobs*", "trainer*", "serving*"]),
    package_data={"serving": ["*.md"], "serving.scoring.page": ["*.html", "*.css", "*.js"]},
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["segthor = segthor.command:main"]},
    install_requires=RUNTIME,
    extras_require=EXTRAS,
)
