"""Trains nnU-Net for benchmarks.peers; nnU-Net plans and preprocesses for itself.

Plans, augmentation, loss, optimizer and prediction with mirroring are nnU-Net's defaults. Other
than by default, training ends by time, no patient is held out, and nothing is validated.
"""

import json
import os
import shutil
from pathlib import Path

import torch
from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

DATASET_ID, DATASET = 501, "Dataset501_Phantoms"
LABELS = {"background": 0, "esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}


def run(configuration: str, other: Path, folder: Path, train_for) -> tuple[int, float]:
    """Trains and predicts. Returns the number of training steps and their seconds."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    os.environ["nnUNet_n_proc_DA"] = "1"  # one process that augments, for two cores
    write_raw(other, folder / "raw" / DATASET)
    planning.extract_fingerprints([DATASET_ID], num_processes=1)
    planning.plan_experiments([DATASET_ID])
    planning.preprocess([DATASET_ID], configurations=[configuration], num_processes=[1])
    trainer = make_trainer(configuration, folder / "preprocessed" / DATASET)
    trained = train(trainer, train_for)
    predict(trainer, other, folder / "predictions")
    return trained


def write_raw(other: Path, raw: Path) -> None:
    """Copies the training patients into nnU-Net's layout."""
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    patients = sorted((other / "train").iterdir())
    for patient in patients:
        name = patient.name
        shutil.copy(patient / f"{name}.nii.gz", raw / "imagesTr" / f"{name}_0000.nii.gz")
        shutil.copy(patient / "GT.nii.gz", raw / "labelsTr" / f"{name}.nii.gz")
    description = {
        "channel_names": {"0": "CT"},
        "labels": LABELS,
        "numTraining": len(patients),
        "file_ending": ".nii.gz",
        # The default reader ignores the orientation, which differs between the patients.
        "overwrite_image_reader_writer": "NibabelIOWithReorient",
    }
    (raw / "dataset.json").write_text(json.dumps(description))


def make_trainer(configuration: str, preprocessed: Path) -> nnUNetTrainer:
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    dataset = json.loads((preprocessed / "dataset.json").read_text())
    plans["continue_training"] = False
    trainer = nnUNetTrainer(plans, configuration, "all", dataset, torch.device("cpu"))
    trainer.disable_checkpointing = True
    return trainer


def train(trainer: nnUNetTrainer, train_for) -> tuple[int, float]:
    """Trains with the polynomial schedule of nnU-Net over the time."""
    trainer.on_train_start()
    trainer.network.train()
    trained = train_for(
        lambda: trainer.train_step(next(trainer.dataloader_train)),
        trainer.optimizer,
        lambda passed: trainer.initial_lr * (1 - passed) ** 0.9,
    )
    trainer.on_train_end()
    return trained


def predict(trainer: nnUNetTrainer, other: Path, output: Path) -> None:
    """Writes label maps on the scans' own grids."""
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(device=trainer.device, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    reader = trainer.plans_manager.image_reader_writer_class()
    for scan in sorted((other / "test").glob("*.nii.gz")):
        image, properties = reader.read_images([scan])
        labels = predictor.predict_single_npy_array(image, properties)
        reader.write_seg(labels, output / scan.name, properties)
