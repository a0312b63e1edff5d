"""What is copied into every winner's folder: load.py and, as preprocess.py, one of the other two. They import nothing
of subshot."""

from pathlib import Path

LOAD = Path(__file__).with_name("load.py")


def preprocess_source(images: bool) -> Path:
    return Path(__file__).with_name("preprocess_images.py" if images else "preprocess_clicks.py")
