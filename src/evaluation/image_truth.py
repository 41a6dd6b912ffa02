"""The true objects of one image."""

from dataclasses import dataclass, field
from pathlib import PureWindowsPath

from src.data.id_map import ImageId
from src.data.names import stem
from src.geometry.instances import Instance


@dataclass(frozen=True, eq=False)
class ImageTruth:
    """The true objects of one image, with the ``id`` that predictions carry and the size in px.

    In the regions ``ignored`` detections of their class, of any where it is :data:`ANY_CLASS`, are neither right nor
    wrong unless they find an object.
    """

    id: int
    file_name: str
    height: int
    width: int
    instances: list[Instance]
    ignored: list[Instance] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file's name without folders and the ending of an image."""
        return stem(PureWindowsPath(self.file_name).name)  # of which / and \\ are separators

    @property
    def entry(self) -> ImageId:
        """What an id map says of the image."""
        return ImageId(self.file_name, self.id, self.height, self.width)
