"""Where things lie in a model directory: FOLDER/<version>/assets/<file>. No tensorflow."""

from segthor import files
from segthor.errors import InputError

MODEL, RECIPE, ORGANS, TRAINING = "model.json", "recipe.json", "organs.json", "training.json"
EXAMPLE, RULES = "example.npz", "postprocess.json"
FORMAT = 1


def newest(folder: str) -> str:
    """FOLDER's highest version, or FOLDER itself if it is one; InputError where there is none."""
    if files.exists(files.join(folder, "saved_model.pb")):
        return folder.rstrip("/")
    found = versions(folder) if files.is_dir(folder) else []
    if not found:
        raise InputError(
            f"{folder}: expected a model directory with a version (1, 2, ...), found none; "
            "make one with python -m serving.export --workdir=... --output=..."
        )
    return files.join(folder, str(max(found)))


def versions(folder: str) -> list[int]:
    """The versions in an existing folder."""
    return [int(name) for name in files.listdir(folder) if name.isdigit()]


def asset(version: str, name: str) -> str:
    """The path of an asset."""
    return files.join(version, "assets", name)


def digest(version: str) -> str:
    """What names the weights; InputError where the model is of another format."""
    model = files.read_json(asset(version, MODEL))
    if model.get("format") != FORMAT:
        raise InputError(
            f"{version}: expected a model of format {FORMAT}, found {model.get('format')}; "
            "export it again with python -m serving.export"
        )
    return model["digest"]
