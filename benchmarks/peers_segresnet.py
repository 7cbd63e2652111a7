"""Trains MONAI's SegResNet for benchmarks.peers by the recipe of MONAI's Auto3DSeg.

Network, loss, optimizer, augmentation, and the choice of spacing, intensities and patch are those
of Auto3DSeg's template `segresnet`, which Auto3DSeg itself downloads when it runs. Augmentation
and training share one process, since the convolutions use all cores.
"""

import itertools
import math
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai import transforms
from monai.data import DataLoader, Dataset
from monai.inferers import SlidingWindowInferer
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.networks.nets import SegResNetDS

NUM_CLASSES = 5


def run(_, other: Path, folder: Path, train_for) -> tuple[int, float]:
    """Trains and predicts. Returns the number of training steps and their seconds."""
    patients = sorted((other / "train").iterdir())
    files = [{"image": p / f"{p.name}.nii.gz", "label": p / "GT.nii.gz"} for p in patients]
    spacing_mm, window = measure(files)
    read = reading(("image", "label"), spacing_mm, window)
    items = [read(item) for item in files]
    network = SegResNetDS(
        init_filters=32,
        blocks_down=(1, 2, 2, 4, 4),
        norm="instance",
        out_channels=NUM_CLASSES,
        dsdepth=4,
        resolution=spacing_mm,
    )
    patch = choose_patch([item["image"].shape[1:] for item in items], network.shape_factor())
    print(f"SegResNet: spacing {spacing_mm} mm, HU {window}, patch {patch}", flush=True)
    trained = train(network, Dataset(items, augmentation(patch)), train_for)
    network.eval()
    infer = SlidingWindowInferer(patch, overlap=0.625, mode="gaussian")
    read = reading(("image",), spacing_mm, window)
    for scan in sorted((other / "test").glob("*.nii.gz")):
        labels = predict(scan, read, lambda image: infer(image, network))
        image = nibabel.Nifti1Image(labels, nibabel.load(scan).affine)
        nibabel.save(image, folder / "predictions" / scan.name)
    return trained


def measure(files) -> tuple[tuple, tuple]:
    """Returns the median spacing in mm along RAS, and the range of HU within the organs."""
    spacings, organs = [], []
    for item in files:
        image, label = nibabel.load(item["image"]), nibabel.load(item["label"])
        spacings.append(nibabel.as_closest_canonical(image).header.get_zooms())
        organs.append(image.get_fdata()[label.get_fdata() > 0])
    low, high = np.percentile(np.concatenate(organs), (0.5, 99.5))
    margin = max(0, 500 - (high - low)) // 2
    window = max(float(low - margin), -1250), min(float(high + margin), 1500)
    return tuple(float(mm) for mm in np.median(spacings, 0)), window


def choose_patch(shapes, factors) -> tuple[int, ...]:
    """The median size of the scans, at most 224x224x144, divisible by `factors`."""
    size = np.minimum(np.median(shapes, 0), (224, 224, 144))
    return tuple(int(n // factor * factor) for n, factor in zip(size, factors, strict=True))


def reading(keys, spacing_mm, window) -> transforms.Compose:
    """Reads, orients, crops to the body, resamples where spacings differ, normalises."""
    modes, pixdim = ("bilinear", "nearest")[: len(keys)], np.array(spacing_mm)
    kept = {"min_pixdim": 0.75 * pixdim, "max_pixdim": 1.25 * pixdim}
    return transforms.Compose(
        [
            transforms.LoadImaged(keys, ensure_channel_first=True),
            transforms.EnsureTyped(keys, dtype=torch.float32),
            transforms.Orientationd(keys, axcodes="RAS", labels=None),
            transforms.CropForegroundd(keys, source_key="image", margin=10, allow_smaller=True),
            transforms.Spacingd(keys, pixdim=pixdim, mode=modes, **kept),
            transforms.ScaleIntensityRanged("image", *window, b_min=-1, b_max=1),
            transforms.Lambdad("image", torch.sigmoid),
        ]
    )


def augmentation(patch) -> transforms.Compose:
    keys, modes, sigma = ("image", "label"), ("bilinear", "nearest"), (0.5, 1.0)
    ranges = {"rotate_range": (0.26, 0.26, 0.26), "scale_range": (0.2, 0.2, 0.2)}
    return transforms.Compose(
        [
            transforms.SpatialPadd(keys, patch),
            transforms.RandCropByLabelClassesd(
                keys, "label", patch, num_classes=NUM_CLASSES, warn=False
            ),
            transforms.RandAffined(
                keys, patch, prob=0.2, mode=modes, padding_mode="border", cache_grid=True, **ranges
            ),
            transforms.RandGaussianSmoothd("image", sigma, sigma, sigma, prob=0.2),
            transforms.RandScaleIntensityd("image", 0.3, prob=0.5),
            transforms.RandShiftIntensityd("image", 0.1, prob=0.5),
            transforms.RandGaussianNoised("image", prob=0.2, std=0.1),
            *(transforms.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
        ]
    )


def train(network, dataset, train_for) -> tuple[int, float]:
    epochs = itertools.repeat(DataLoader(dataset, batch_size=1, shuffle=True))
    batches = itertools.chain.from_iterable(epochs)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-5)
    dice = {"squared_pred": True, "smooth_nr": 0, "smooth_dr": 1e-5}
    loss = DeepSupervisionLoss(DiceCELoss(to_onehot_y=True, softmax=True, **dice))
    network.train()

    def step():
        batch = next(batches)
        optimizer.zero_grad()
        loss(network(batch["image"].as_tensor()), batch["label"].as_tensor()).backward()
        optimizer.step()

    return train_for(step, optimizer, warmup_cosine)


def warmup_cosine(passed: float) -> float:
    """The learning rate: 2e-4 after a linear start of 1 % of the time, then a cosine to 0."""
    return 2e-4 * min(0.1 + 90 * passed, 0.5 * (1 + math.cos(math.pi * passed)))


@torch.no_grad()
def predict(scan: Path, read: transforms.Compose, infer) -> np.ndarray:
    """Returns the label map on the scan's own grid."""
    item = read({"image": scan})
    item["logits"] = infer(item["image"][None])[0]
    invert = transforms.Invertd("logits", read, "image", nearest_interp=False)
    return invert(item)["logits"].argmax(0).numpy().astype(np.uint8)
